"""The durable queue: the only SQL of the queue, one writer, in one directory."""
