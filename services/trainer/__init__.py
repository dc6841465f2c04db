"""Owns the loop and the policy."""
