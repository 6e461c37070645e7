"""What is due: scheduler, retries, leases, expiry, and what an outcome means."""
