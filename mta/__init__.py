"""A mail transfer agent for people who send a lot of mail from their own machines."""

__version__ = "0.1.0"
