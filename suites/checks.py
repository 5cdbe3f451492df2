"""Refusing what cannot run, in one line that tells the fix, and the checks that many keys share."""

from __future__ import annotations

import codecs
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

Number = TypeVar("Number", int, float)

ROOT = Path(__file__).resolve().parent.parent


class Refused(Exception):
    """The request cannot run as it stands; the message is one line that says what to do."""


def positive(key: str, value: float) -> float:
    if not 0 < value < float("inf"):
        raise Refused(f"{key}={value} must be greater than 0 and finite")
    return value


def at_least(key: str, value: Number, least: int) -> Number:
    if value < least:
        raise Refused(f"{key}={value} must be at least {least}")
    return value


def lines(key: str, path: str) -> list[str]:
    """The lines of a text file that are not empty; a relative path is looked for here and in the project."""
    return [line for _, line in numbered_lines(key, path)]


def numbered_lines(key: str, path: str) -> list[tuple[int, str]]:
    """The same with their numbers in the file."""
    for candidate in (Path(path), ROOT / path):
        if path and candidate.is_file():
            found = [(number, line) for number, line in _decoded(key, path, candidate) if line]
            if found:
                return found
            raise Refused(f"{key}={path} is empty; give a file with one entry a line")
    raise Refused(f"{key}={path or '(nothing)'} is not a file; give one with an entry a line")


def _decoded(key: str, path: str, file: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(file.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines(), 1):
        try:
            yield number, line.decode().strip()
        except UnicodeDecodeError as error:
            raise Refused(f"{key}={path} is not UTF-8 in line {number} ({error.reason}); save it as UTF-8") from None


def between(key: str, value: float, least: float, most: float) -> float:
    if not least <= value <= most:
        raise Refused(f"{key}={value} must lie between {least:g} and {most:g}")
    return value


def writable(key: str, path: str) -> Path:
    if not path:
        raise Refused(f"{key}= names no folder; choose one, e.g. {key}=/tmp/{key}")
    folder = Path(path) if Path(path).is_absolute() else Path.cwd() / path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0" * 4096)
    except OSError as error:
        raise Refused(f"{key}={path} cannot be written ({error.strerror}); choose another folder") from None
    return folder
