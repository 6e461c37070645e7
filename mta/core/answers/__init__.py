"""What peers say and what it means."""
