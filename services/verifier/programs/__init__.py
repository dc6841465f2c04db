"""Programs: the tests of a problem, the compiler, the comparison of what came out."""
