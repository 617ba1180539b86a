"""Hashes that chain the entries of an audit log."""

import hashlib

START = bytes(32)


def content_of(text: str) -> bytes:
    """SHA-256 of an entry's text."""
    return hashlib.sha256(text.encode()).digest()


def chained(before: bytes, content: bytes) -> bytes:
    """The chain after an entry."""
    return hashlib.sha256(before + content).digest()
