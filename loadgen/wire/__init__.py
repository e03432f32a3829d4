"""HTTP with kernel receive stamps: one TCP connection, and the transport that the official client is given.

The neighbour: ``api`` knows what the bytes mean.
"""
