"""Clusters for people: what they are and in what state, without asking a server."""

import html
from collections.abc import Sequence

from private_keras.cluster.handle import Stats

Facts = Sequence[tuple[str, str]]


def as_text(kind: str, facts: Facts) -> str:
    """One line."""
    return f"<{kind}: {'; '.join(f'{name} {value}' for name, value in facts)}>"


def as_html(kind: str, facts: Facts, stats: Stats) -> str:
    """A table of facts and one of what runs took, every text escaped."""
    rows = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in facts)
    return f"<h4>{html.escape(kind)}</h4><table>{rows}</table>{stats._repr_html_()}"
