"""What waits: its states, its next attempt, its end."""
