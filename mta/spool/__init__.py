"""The durable store: the only SQL. Queue, credentials and what was learned live in one directory."""
