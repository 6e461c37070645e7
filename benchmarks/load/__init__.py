"""What is sent to an MTA under measurement, and by whom."""
