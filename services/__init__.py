"""The long-lived processes. They never import each other."""
