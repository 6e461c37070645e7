"""Keys on disk, and the signatures that are made with them, off the event loop."""
