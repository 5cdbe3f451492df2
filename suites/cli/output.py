"""Standard output and standard error that tolerate a closed stream, a full disk and a pipe without a reader.

The work of a command, such as writing tables, does not depend on its output being read.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TextIO

from backends.atomic_file import write_atomically
from suites.schema.refusals import Refused
from suites.text import one_line

LONGEST_PATH = 500
"""Longest part, in characters, of a path in a message."""

_CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class TolerantStream:
    """Text stream that drops text that cannot be written, and stores the first error in `problem`.

    With `plain`, control characters of a terminal are visible as their codes.
    """

    def __init__(self, stream: TextIO, plain: bool) -> None:
        self.problem: OSError | None = None
        self._stream, self._plain = stream, plain

    def write(self, text: str) -> int:
        visible = _CONTROL_CHARACTERS.sub(lambda match: f"\\x{ord(match[0]):02x}", text) if self._plain else text
        if self.problem is None:
            try:
                self._stream.write(_encodable(visible, getattr(self._stream, "encoding", None)))
            except (OSError, ValueError) as error:
                self._failed(error)
        return len(text)

    def write_styled(self, text: str) -> None:
        """Write text whose escape sequences for colours reach the terminal. Texts of records must be escaped before."""
        if isinstance(self._stream, TolerantStream):
            self._stream.write_styled(text)
            return
        plain, self._plain = self._plain, False
        self.write(text)
        self._plain = plain

    def flush(self) -> None:
        if self.problem is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._failed(error)

    def _failed(self, error: OSError | ValueError) -> None:
        # A closed stream raises ValueError.
        self.problem = error if isinstance(error, OSError) else OSError(errno.EBADF, os.strerror(errno.EBADF))
        try:
            # Text that is still in the stream's buffer would raise again when Python exits.
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self._stream.fileno())
            os.close(devnull)
        except (OSError, ValueError, AttributeError):
            pass

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def __getattr__(self, name: str) -> object:
        value: object = getattr(self._stream, name)
        return value


class TolerantOutput:
    """Context in which `sys.stdout` and `sys.stderr` are tolerant."""

    def __enter__(self) -> TolerantOutput:
        self._own = sys.stdout, sys.stderr
        self._out = TolerantStream(sys.stdout, plain=True) if sys.stdout is not None else None
        self._err = TolerantStream(sys.stderr, plain=False) if sys.stderr is not None else None
        sys.stdout, sys.stderr = self._out, self._err
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in (self._out, self._err):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = self._own

    def status(self, status: int) -> int:
        """Return the exit status. If output was lost, print a line on standard error and return at least 1.

        A reader that stops early, such as `head`, is not an error.
        """
        lost = self._out.problem if self._out is not None else None
        if lost is None or lost.errno == errno.EPIPE:
            return status
        reason = lost.strerror or str(lost)
        with TolerantOutput():
            print(
                f"standard output cannot be written ({reason}); records and tables were written to files",
                file=sys.stderr,
            )
        return status or 1


def shows_colours() -> bool:
    """Return whether standard output is a terminal that shows colours, and NO_COLOR (https://no-color.org) is unset."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return False
    try:
        return sys.stdout is not None and sys.stdout.isatty()
    except ValueError:  # a closed stream
        return False


def print_styled(text: str) -> None:
    """Print text with escape sequences for colours on standard output."""
    stream = sys.stdout
    if isinstance(stream, TolerantStream):
        stream.write_styled(f"{text}\n")
    else:
        print(text)


def run_with_tolerant_output(main: Callable[[], int]) -> int:
    """Run `main` with tolerant output, also for the help of argparse, and return its exit status."""
    with TolerantOutput() as output:
        try:
            status = main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return output.status(status)


def _encodable(text: str, encoding: str | None) -> str:
    """Return `text` with codes instead of characters that the encoding of the stream does not have."""
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return text.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")
    except LookupError:
        return text.encode("ascii", "backslashreplace").decode("ascii")
    return text


def write_output(option: str, path: Path, content: str | bytes) -> None:
    """Write a file that the user named with an option. An existing output is replaced, a device or a pipe is not.

    Raises:
        Refused: the file cannot be written, or it is a JSON file, which may be a record.
    """
    name = one_line(str(path), LONGEST_PATH)
    if path.suffix == ".json" and os.path.exists(path):
        raise Refused(f"{option} {name} exists and may be a record; choose another file")
    try:
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        else:
            write_atomically(path, content)
    except (OSError, ValueError) as error:
        reason = "its folder is a file" if path.parent.is_file() else getattr(error, "strerror", None) or error
        raise Refused(f"{option} {name} cannot be written ({reason}); choose another file") from None
