"""Findings, reports, and how they are shown."""
