"""The derivations that ship."""
