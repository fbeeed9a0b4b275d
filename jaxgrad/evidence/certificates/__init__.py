"""Certificates: two functions are proved equal, or shown to differ, over finite fields."""
