"""Who receives, and the MTAs that we measure ourselves beside."""
