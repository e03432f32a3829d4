"""Benchmarks of what structbench costs and how accurate its figures are on this machine: ``python -m benchmarks``."""
