"""Cases and where they come from (shipped, generated and public suites, your own files), and the requests they become.

``scoring`` judges the answers; the two share ``types.Case``.
"""
