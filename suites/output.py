"""Standard output and standard error that may be closed, full or a pipe that nobody reads any more.

A command's work, such as the tables it writes, does not depend on whether its output is read.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class TolerantStream:
    """A text stream that drops what cannot be written, and remembers the first error in `problem`.

    With `plain`, characters that a terminal obeys are shown as their codes.
    """

    def __init__(self, stream: Any, plain: bool) -> None:
        self.problem: OSError | None = None
        self._stream, self._plain = stream, plain

    def write(self, text: str) -> int:
        shown = _OBEYED.sub(lambda found: f"\\x{ord(found[0]):02x}", text) if self._plain else text
        if self.problem is None:
            try:
                self._stream.write(_encodable(shown, getattr(self._stream, "encoding", None)))
            except (OSError, ValueError) as error:
                self._failed(error)
        return len(text)

    def flush(self) -> None:
        if self.problem is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._failed(error)

    def _failed(self, error: OSError | ValueError) -> None:
        # A ValueError is that of a closed stream.
        self.problem = error if isinstance(error, OSError) else OSError(errno.EBADF, os.strerror(errno.EBADF))
        try:
            # What the stream still holds would fail once more when Python ends.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        except (OSError, ValueError, AttributeError):
            pass

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class TolerantOutput:
    """Makes `sys.stdout` and `sys.stderr` tolerant while it is entered."""

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
        """The exit status, once a line on standard error has said that output was lost.

        A reader that stops early, as `head` does, is no error.
        """
        lost = self._out.problem if self._out is not None else None
        if lost is None or lost.errno == errno.EPIPE:
            return status
        reason = lost.strerror or str(lost)
        with TolerantOutput():
            print(f"standard output cannot be written ({reason}); records and tables are in files", file=sys.stderr)
        return status or 1


def tolerantly(main: Callable[[], int]) -> int:
    """The exit status of `main`, whose output, the help of argparse included, may be closed, full or read in part."""
    with TolerantOutput() as output:
        try:
            status = main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return output.status(status)


def _encodable(text: str, encoding: str | None) -> str:
    """`text` with codes for characters that the stream's encoding lacks."""
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return text.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")
    except LookupError:
        return text.encode("ascii", "backslashreplace").decode("ascii")
    return text
