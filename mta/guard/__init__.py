"""What protects our reputation: the checks, and what they know."""
