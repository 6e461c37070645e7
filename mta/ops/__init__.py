"""How operators and the service manager look in: admin HTTP, control socket, notifications, certificate."""
