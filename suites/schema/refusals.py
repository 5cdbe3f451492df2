"""Refusals of requests, and checks that many keys share. A refusal is one line with the fault and the correction."""

from __future__ import annotations

import codecs
import difflib
import errno
import os
import re
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

from backends.value_checks import Refused as Refused
from backends.value_checks import at_least as at_least
from backends.value_checks import between as between
from backends.value_checks import positive as positive
from suites.root import ROOT

SHOWN = 80
"""Longest part, in characters, of a user's line or value that a message repeats."""

OTHER_UNICODE = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


def shortened(text: str, most: int = SHOWN) -> str:
    """Return `text` in one line of at most `most` characters, for a message."""
    line = " ".join(text[: most + 1].split("\n"))
    return line if len(text) <= most else f"{line[:most]}..."


def nearest(typed: str, names: Iterable[str]) -> str:
    """Return the name that is most similar to a mistyped name; "" if no name is similar.

    Of several equally similar names, the first with the same first letter counts, because the first letter of a word is
    rarely mistyped.
    """
    others = [name for name in names if name != typed]
    close = difflib.get_close_matches(typed.lower(), others, n=len(others) or 1, cutoff=0.5)
    likeness = [difflib.SequenceMatcher(None, name, typed.lower()).ratio() for name in close]
    best = [name for name, ratio in zip(close, likeness, strict=True) if ratio == max(likeness)]
    return next((name for name in best if name[:1] == typed[:1].lower()), best[0] if best else "")


def did_you_mean(typed: str, names: Iterable[str], prefix: str = "") -> str:
    """Return a question with the most similar name and a space after it; "" if no name is similar."""
    near = nearest(typed, names)
    return f"did you mean {prefix}{near}? " if near else ""


def no_such_choice(key: str, value: str, choices: Iterable[str]) -> str:
    """Return the line for a value that is not one of the choices of a key."""
    choices = list(choices)
    hint = did_you_mean(value, choices)
    return f"there is no {key}={shortened(value)}; {hint}choices: {', '.join(choices)}"


def first_line(error: BaseException) -> str:
    """Return the type of an error and the first line of its message that is not empty.

    Without a message, return the type and the place in the code that raised the error.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines:
        more = f" {lines[1]}" if lines[0].endswith(":") and len(lines) > 1 else ""
        return f"{type(error).__name__}: {lines[0]}{more}"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}, without a message"


def is_file(path: str | Path) -> bool:
    """Return whether the path is a file. The answer is also True in a folder without read permission.

    A name that no file can have gives False.
    """
    try:
        return Path(path).is_file()
    except PermissionError:
        return True  # Reading the file raises an error with the reason.
    except (OSError, ValueError):
        return False


def read_bytes(key: str, path: Path) -> bytes:
    """Return the contents of a user's file.

    Raises:
        Refused: The file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refused(f"{key}={path} cannot be read: {error.strerror}; {_remedy(error)}") from None


def _remedy(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "ask its owner for read permission (chmod +r), or give your own copy of the file"
    return "give a file that can be read"


def decoded(name: str, data: bytes) -> str:
    """Return the text of a file in UTF-8, with or without a byte order mark.

    Raises:
        Refused: The file has another encoding. The message has the first line that is not UTF-8.
    """
    for mark, encoding in OTHER_UNICODE.items():
        if data.startswith(mark):
            raise Refused(f"{name} is in {encoding}; save the file as UTF-8")
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise Refused(f"{name}, line {line}: it is not UTF-8 ({error.reason}); save the file as UTF-8") from None


def lines(key: str, path: str) -> list[str]:
    """Return the lines of a text file that are not empty.

    A relative path is searched in the current folder and in the project's folder.
    """
    return [line for _, line in numbered_lines(key, path)]


def numbered_lines(key: str, path: str) -> list[tuple[int, str]]:
    """Return the lines of a text file that are not empty, each with its line number."""
    for candidate in (Path(path), ROOT / path):
        if path and is_file(candidate):
            text = decoded(f"{key}={path}", read_bytes(key, candidate))
            if numbered := list(_filled(text)):
                return numbered
            raise Refused(f"{key}={path} is empty; give a file with one entry per line")
    raise Refused(f"{key}={shortened(path, 300) or '(nothing)'} is not a file; give a file with one entry per line")


def _filled(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(re.split("\r\n|\r|\n", text), 1):
        if stripped := line.strip():
            yield number, stripped


def writable(key: str, path: str) -> Path:
    """Return the folder that `key` names. Create the folder if it does not exist.

    Raises:
        Refused: No file can be written in the folder.
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


def unwritten(key: str, path: str) -> Path:
    """Return the folder that `key` names, and write nothing: it may not exist yet.

    Raises:
        Refused: The folder is not a folder, or cannot be created, read or written.
    """
    if not path:
        raise Refused(f"{key}= names no folder; choose one, e.g. {key}=/tmp/{key}")
    try:
        folder = nearest_folder = Path(path) if Path(path).is_absolute() else Path.cwd() / path
        while not os.path.lexists(nearest_folder) and nearest_folder != nearest_folder.parent:
            nearest_folder = nearest_folder.parent
        if not nearest_folder.is_dir():
            code = errno.EEXIST if nearest_folder == folder else errno.ENOTDIR
            raise OSError(code, os.strerror(code))
        if not os.access(nearest_folder, os.R_OK | os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Refused(f"{key}={path} cannot be written ({reason}); choose another folder") from None
    return folder


def check_record(results: Path, path: Path) -> None:
    """Check before a long measurement that a record can be written to `path`.

    Raises:
        Refused: The record cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(descriptor)
        os.unlink(name)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise Refused(
                f"{path.name[:40]}... is too long for the name of a record ({len(path.name)} characters); "
                "set a shorter model.name="
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
