"""What structbench costs and how true its figures are, measured on the machine at hand: ``python -m benchmarks``."""
