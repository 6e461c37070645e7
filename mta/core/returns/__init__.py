"""What comes back: whose mail it was."""
