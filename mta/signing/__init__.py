"""Secrets and keys on disk, and what is made with them."""
