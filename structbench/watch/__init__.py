"""Watching a load from its metrics endpoint: scrapes, what two of them show, and the screen.

The neighbour: ``loadgen.telemetry`` serves what is read here.
"""
