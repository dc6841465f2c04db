"""Mathematical text in, verdict out: pure, without an algebra system."""
