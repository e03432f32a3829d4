"""One ``structbench load``: from options to cells, what is done already, the run loop, and what people see meanwhile.

The neighbours: ``suites`` says what is asked, ``scoring`` what an answer was worth, ``store`` and ``gates`` come after.
"""
