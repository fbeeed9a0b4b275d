"""Linear algebra of residues by exact elimination."""

ALGEBRA = {}
