"""Worlds of text in which a response has several turns. `base.py` is the port, `registry.py` knows them by name."""
