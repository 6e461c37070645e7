"""What this machine is to us: addresses, memory, descriptors, certificate, service manager; and findings."""
