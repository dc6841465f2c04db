"""Batch work on top of the services."""
