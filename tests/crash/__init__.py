"""The daemon killed in the middle of its work, and the books of what became of its mail."""
