"""HTTP with kernel receive stamps, as a transport for official clients."""
