"""Traced functions: walking, running in numpy, degrees, cost, rewriting, capture."""
