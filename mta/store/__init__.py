"""Durable things apart from the queue: one small module each."""
