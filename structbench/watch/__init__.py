"""Watching a load from its metrics endpoint: scrapes, the snapshot that they give, and the screen."""
