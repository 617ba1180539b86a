"""Ordered bytes between named parties: in memory, over Unix sockets, over TLS 1.3."""
