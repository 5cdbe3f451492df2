"""Make text from records, workers and arguments safe for a terminal and for markdown."""

from __future__ import annotations

import re
import unicodedata

UNSAFE = {"Cc", "Cf", "Zl", "Zp", "Cs"}
"""Unicode categories that move a cursor, change direction, hide text or break lines: controls, formats, separators."""

_NOT_ASCII = re.compile("[^\x20-\x7e]")
_LONGEST = 4000

_SOURCE_PLACE = re.compile(r"(?:\b\d+: )?\[\w+\.\w+::[\w:]+\] (?:Error Code \d+: )?")
_RAISED = re.compile(r"\bthe step in a child process failed: (?:\w+Error: )?")


def one_line(text: str, most: int = _LONGEST) -> str:
    """Return `text` on one line of at most `most` characters, without control characters of a terminal.

    White space becomes a space. Other invisible characters become their code, e.g. `\\x1b`.
    """
    visible = text if len(text) <= most else f"{text[:most]}… ({len(text) - most} more characters)"
    return _NOT_ASCII.sub(lambda match: _visible(match[0]), visible)


def essential(reason: str) -> str:
    """Return the reason of a failure without places in source files and the numbers of errors.

    "1: [runner.cpp::execute::764] Error Code 1: no memory" is "no memory".
    """
    return _SOURCE_PLACE.sub("", _RAISED.sub("", reason))


def _visible(character: str) -> str:
    if character in "\t\n\r\v\f\x85\u2028\u2029":
        return " "
    if unicodedata.category(character) in UNSAFE:
        return character.encode("unicode_escape", "backslashreplace").decode("ascii")
    return character


def sanitized(value: object) -> object:
    """Return a JSON value in which `one_line` was applied to all strings and keys."""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, dict):
        return {one_line(str(key)): sanitized(item) for key, item in value.items()}
    if isinstance(value, list):
        return [sanitized(item) for item in value]
    return value


def cell_text(text: str) -> str:
    """Return `text` as one cell of a markdown table: without line breaks, and with escaped pipes."""
    line = one_line(text).replace("\n", " ")
    return re.sub(r"(\\*)\|", lambda match: match[1] * 2 + r"\|", line)


def without_html(document: str) -> str:
    """Return a markdown document without HTML, links and images, because tables do not need them."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", document).replace("](", "]\\(")
