"""How far rounding may move a number."""
