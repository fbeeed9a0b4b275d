"""Evidence: what can be known of one claim, each kind by an engine of its own."""
