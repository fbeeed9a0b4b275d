"""Programs evaluated over finite fields."""
