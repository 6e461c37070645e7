"""Names: the resolver, and what is looked up of others' policy."""
