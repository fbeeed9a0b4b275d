"""Rewriting of the program of a sampling loop."""
