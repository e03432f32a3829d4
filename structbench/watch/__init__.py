"""Watching a load from its metrics endpoint: scrapes, the snapshot that they give, and the screen.

The neighbour: ``loadgen.telemetry`` serves what is scraped here.
"""
