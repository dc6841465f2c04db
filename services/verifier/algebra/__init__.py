"""Questions of algebra, settled in worker processes that are killed at the deadline."""
