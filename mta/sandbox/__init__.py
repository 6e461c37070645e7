"""Nothing leaves this machine: a receiving MX of our own stands for the whole internet."""
