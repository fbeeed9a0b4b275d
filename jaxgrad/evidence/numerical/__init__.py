"""Autodiff and finite differences."""
