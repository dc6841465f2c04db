"""PRIME services: the shared library. Holds the version and imports nothing, so that records stay light."""

__version__ = "0.1.0"
