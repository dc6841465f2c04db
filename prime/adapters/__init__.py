"""What touches the world, each with its in-memory twin."""
