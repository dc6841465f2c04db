"""Problems: the schema, where they come from, and the demo task."""
