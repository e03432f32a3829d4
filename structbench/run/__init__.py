"""One ``structbench load``: settings, cells, what is done already, the run loop, and the progress display."""
