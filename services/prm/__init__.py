"""Scores tokens with the implicit PRM and teaches it outcomes."""
