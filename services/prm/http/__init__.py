"""The HTTP edge of the PRM: one module per family of clients, all over the same use case."""
