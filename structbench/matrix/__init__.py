"""What a server does, feature by feature: probes, the client that tries them, and the grid.

The neighbour: ``run`` measures how fast and how right; this asks whether at all.
"""
