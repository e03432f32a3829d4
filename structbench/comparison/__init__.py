"""Compares A with B: matching cells, rows as samples, intervals and tests, and how the result is written.

Neighbours: ``results`` reads the cells; ``reports`` presents one file, this package compares two sides.
"""
