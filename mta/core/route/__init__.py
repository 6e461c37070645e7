"""Where mail goes, from which source, on what terms."""
