"""Which protocol: one request through the server's official client, and questions to the server beside the load.

The neighbours: ``wire`` carries the bytes and stamps them; ``engine`` decides when a request is sent, and from where.
"""
