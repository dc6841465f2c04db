"""Grades answers; runs what it does not trust in a sandbox."""
