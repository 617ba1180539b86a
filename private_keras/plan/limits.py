"""What a plan may contain: sizes, names and text. The only place where these numbers are written."""
import re
from typing import Any

from private_keras.errors import PlanError

MAX_ELEMENTS = 2**28
MAX_RANK = 8
MAX_STEPS = 200_000
MAX_INPUTS = 100_000
MAX_OUTPUTS = 10_000
MAX_OPERANDS = 4096
MAX_RECEIVERS = 64
MAX_FRACTION = 58
MAX_JSON_BYTES = 256 * 2**20
# Brackets and commas bound the memory that parsing takes: a list is 56 bytes in memory and 2 in the text.
MAX_JSON_CONTAINERS = 4_000_000
MAX_JSON_ITEMS = 2**25
MAX_LIST = 2**24
MAX_PIECES = 256
# A step runs to its end before a server looks whether its job was cancelled: minutes, not days.
MAX_PRODUCTS = 2**40
MAX_WINDOW = 2**16
MAX_TEXT = 400
KINDS = ("predict", "evaluate", "train", "aggregate", "compute", "reveal")

IDENTIFIER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,199}", re.ASCII)


def shown(value: Any) -> str:
    """A short, printable form of what was received, for messages; everything in a plan is public."""
    if isinstance(value, list | tuple | dict) and len(value) > 16:
        return f"{type(value).__name__} of {len(value)} items"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    text = ascii(value)
    return text if len(text) <= 80 else f"{type(value).__name__} {text[:60]}..."


def identifier(value: Any, what: str) -> str:
    """A name of a value, party or output."""
    if not isinstance(value, str) or not IDENTIFIER.fullmatch(value):
        raise PlanError(
            f"{what}: expected a name of 1 to 200 letters, digits and _ . : / - that starts with a letter, digit or _. "
            f"Received: {shown(value)}"
        )
    return value


def shares(value: Any, what: str) -> str:
    """Which named shares, as "name#tensor"; empty where it is not said."""
    if value == "":
        return value
    name, mark, tensor = value.partition("#") if isinstance(value, str) else ("", "", "")
    if not mark:
        raise PlanError(f'{what}: expected "name#tensor". Received: {shown(value)}')
    identifier(name, what)
    text(tensor, what)
    return value


def text(value: Any, what: str) -> str:
    """A label that people read: printable, so that it cannot rewrite the table it is shown in."""
    if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
        raise PlanError(f"{what}: expected printable text of at most {MAX_TEXT} characters. Received: {shown(value)}")
    return value


def integer(value: Any, low: int, high: int, what: str) -> int:
    """An integer in low .. high. True and False are not integers."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise PlanError(f"{what}: expected an integer from {low} to {high}. Received: {shown(value)}")
    return value


def flag(value: Any, what: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise PlanError(f"{what}: expected true or false. Received: {shown(value)}")
    return value


def shape(value: Any, what: str) -> tuple[int, ...]:
    """A shape: at most `MAX_RANK` sizes of at least 1, `MAX_ELEMENTS` elements in all."""
    if not isinstance(value, list | tuple) or len(value) > MAX_RANK:
        raise PlanError(f"{what}: expected a shape of at most {MAX_RANK} axes. Received: {shown(value)}")
    size = 1
    for n in value:
        size *= integer(n, 1, MAX_ELEMENTS, f"{what}: each size")
    if size > MAX_ELEMENTS:
        raise PlanError(
            f"{what}: expected at most {MAX_ELEMENTS} elements. Received: shape {tuple(value)} with {size}; "
            "use smaller batches"
        )
    return tuple(value)


def products(count: int) -> None:
    """Refuses a step of more multiplications or additions than `MAX_PRODUCTS`."""
    if count > MAX_PRODUCTS:
        raise PlanError(
            f"expected a step of at most {MAX_PRODUCTS} multiplications or additions. Received: {count}; "
            "use smaller batches"
        )
