"""What README and docs tell people to type and to follow: commands that parse, links that lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

import private_keras as pk
from private_keras.cli import parser

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_COMMAND = re.compile(r"^private-keras .*$", re.M)


def commands(text):
    """Those that stand in blocks, without comments and prompts."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S):
        for line in _COMMAND.findall(block.replace("\\\n", " ")):
            yield shlex.split(line, comments=True)[1:]


def anchor(heading):
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page):
    for arguments in commands(page.read_text()):
        assert parser().parse_args(arguments).command, arguments


def test_commands_are_found():
    found = [arguments[0] for page in PAGES for arguments in commands(page.read_text())]
    assert {"keys", "serve", "doctor", "share", "fit", "predict", "inspect", "approve", "audit"} <= set(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        path, _, place = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if place:
            assert place in {anchor(title) for title in re.findall(r"^#+ (.*)$", target.read_text(), re.M)}, link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_exist(page):
    """Each `pk.something` that a page speaks of."""
    for dotted in set(re.findall(r"\bpk\.([A-Za-z_]+(?:\.[A-Za-z_]+)*)", page.read_text())):
        found = pk
        for name in dotted.split("."):
            assert hasattr(found, name), f"pk.{dotted}"
            found = getattr(found, name)
