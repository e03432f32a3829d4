"""Reading what is stored: which runs, their figures and charts' data, wrong answers, and whether it still holds.

The neighbours: ``store`` has the tables and views; ``reports`` and ``comparison`` write down what is read here.
"""
