"""Text from records, workers and arguments, made safe to show in a terminal or in markdown."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

UNSAFE = {"Cc", "Cf", "Zl", "Zp", "Cs"}
"""Unicode categories that move a cursor, change direction, hide text or break lines: controls, formats, separators."""

_SUSPECT = re.compile("[^\x20-\x7e]")
_MOST = 4000


def one_line(text: str, most: int = _MOST) -> str:
    """`text` on one line, with nothing in it that a terminal obeys, and cut after `most` characters.

    White space becomes a space. Other characters that cannot be seen become their code, e.g. `\\x1b`.
    """
    shown = text if len(text) <= most else f"{text[:most]}… ({len(text) - most} more characters)"
    return _SUSPECT.sub(lambda found: _visible(found[0]), shown)


def _visible(character: str) -> str:
    if character in "\t\n\r\v\f\x85\u2028\u2029":
        return " "
    if unicodedata.category(character) in UNSAFE:
        return character.encode("unicode_escape", "backslashreplace").decode("ascii")
    return character


def cleaned(value: Any) -> Any:
    """A JSON value whose strings and keys are all `one_line`."""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, dict):
        return {one_line(str(key)): cleaned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    return value


def cell_text(text: str) -> str:
    """`text` as one cell of a markdown table: no line break, and no pipe that ends the cell."""
    shown = one_line(text).replace("\n", " ")
    return re.sub(r"(\\*)\|", lambda found: found[1] * 2 + r"\|", shown)


def without_html(document: str) -> str:
    """A markdown document in which `<` starts no HTML, and which has no links or images: tables need neither."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", document).replace("](", "]\\(")
