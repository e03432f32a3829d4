"""Reads stored results: selected runs, their figures and chart data, wrong answers, and verification.

Neighbours: ``store`` has the tables and views; ``reports`` and ``comparison`` present what is read here.
"""
