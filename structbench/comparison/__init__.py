"""A against B: cells that match, rows as samples, intervals and tests, and how the result is written.

The neighbours: ``results`` reads the cells; ``reports`` is about one file, this about two sides.
"""
