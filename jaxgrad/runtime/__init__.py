"""Compiling, caching, worker processes, and files written whole or not at all."""
