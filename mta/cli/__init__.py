"""The commands, by noun: what an operator types, and what he is told."""
