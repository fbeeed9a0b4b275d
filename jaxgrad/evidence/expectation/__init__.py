"""Exact expectations under a mask."""
