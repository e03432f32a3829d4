"""Who sends: worker processes on this machine, each a fresh interpreter with its share of the load.

The neighbours: ``api`` sends one request and makes its record; ``types`` has what goes in and comes out.
"""
