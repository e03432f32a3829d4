"""What is asked: suites that ship, generated ones, files, public data; and the requests made of their cases.

The neighbours: ``scoring`` judges the answers; ``types.Case`` is what both agree on.
"""
