"""How far rounding may move a number: rounding bounds, random rounding, low-precision constants."""
