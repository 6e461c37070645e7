"""Sinks of the event stream."""
