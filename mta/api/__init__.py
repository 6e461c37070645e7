"""How operators and monitoring ask: metrics and readiness over HTTP, commands over a socket."""
