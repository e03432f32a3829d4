"""One ``structbench load``: settings, cells, what is done already, the run loop, and the progress display.

The neighbours: ``suites`` has the cases, ``scoring`` judges answers, ``store`` keeps them, ``gates`` judges the cells.
"""
