"""Runs untrusted programs: the service's side, and in `isolation/` the other."""
