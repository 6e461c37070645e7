"""What is due: fresh mail, retries, look-ups, leases, the gate, expiry, and what an outcome means."""
