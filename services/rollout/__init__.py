"""Turns rollout requests into groups of samples."""
