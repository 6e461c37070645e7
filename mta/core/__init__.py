"""Decisions only: values in, values out. No I/O, no clock, no dice, no logging."""
