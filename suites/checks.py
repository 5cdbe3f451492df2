"""Refusing what cannot run, in one line that tells the fix, and the checks that many keys share."""

from __future__ import annotations

import codecs
import errno
import os
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
    """The folder that `key` names, made if it is missing.

    Raises:
        Refused: no file can be written there.
    """
    if not path:
        raise Refused(f"{key}= names no folder; choose one, e.g. {key}=/tmp/{key}")
    try:
        folder = Path(path) if Path(path).is_absolute() else Path.cwd() / path
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0" * 4096)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Refused(f"{key}={path} cannot be written ({reason}); choose another folder") from None
    return folder


def readable(key: str, path: Path) -> Path:
    """`path` if it is a file that this user can read.

    Raises:
        Refused: it is not.
    """
    try:
        if path.is_file():
            with path.open("rb") as stream:
                stream.read(1)
            return path
        reason = "no such file" if not path.exists() else "not a file"
    except OSError as error:
        reason = error.strerror or str(error)
    raise Refused(f"{key}: {path} cannot be read ({reason}); check its name and its permissions")


def check_record(results: Path, path: Path) -> None:
    """Check that a record can be written to `path`, before hours of measuring.

    Raises:
        Refused: it cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(descriptor)
        os.unlink(name)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise Refused(
                f"{path.name[:40]}... is too long for the name of a record ({len(path.name)} letters); "
                "give a shorter model.name="
            ) from None
        reason = error.strerror or str(error)
        raise Refused(
            f"results={results}: no record can be written in {path.parent} ({reason}); choose another folder"
        ) from None
    if os.path.lexists(path) and not path.is_file():
        raise Refused(f"results={results}: {path} is not a file; move it away or choose another folder")
    tables = path.parents[2] / "tables"
    if os.path.lexists(tables) and not tables.is_dir():
        raise Refused(f"results={results}: {tables} is not a folder; move it away or choose another folder")
