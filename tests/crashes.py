"""Processes that die at a call of the file system or of SQLite, for tests: at any one, and nothing works after it."""

import os

from private_keras.server.catalogue import database


class Crash(BaseException):
    """The process dies here: nothing after it runs, but for what `finally` would do in this test's process."""


def crashing(monkeypatch, at, more=()):
    """Lets the `at`-th call fail, and every later one; returns how many there were.

    Args:
        more: names of further functions of `os` that count.
    """
    count = [0]

    def wrap(honest):
        def call(*args, **kwargs):
            count[0] += 1
            if count[0] > at:
                raise Crash
            return honest(*args, **kwargs)

        return call

    for name in ("open", "fsync", "mkdir", "unlink", "posix_fallocate", *more):
        monkeypatch.setattr(os, name, wrap(getattr(os, name)))
    for name in ("_begin", "_commit"):
        monkeypatch.setattr(database, name, wrap(getattr(database, name)))
    return count
