"""Claims: losses, closed forms, shapes and domains, and whose error an exception is."""
