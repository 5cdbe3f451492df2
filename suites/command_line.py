"""From what was typed to what Hydra reads, and from what goes wrong to one line and an exit status."""

from __future__ import annotations

import difflib
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence

from suites.checks import Refused
from suites.output import TolerantOutput
from suites.text import one_line

REFUSED, INTERRUPTED = 2, 130

FLAGS = ("--multirun", "--cfg", "--resolve", "--package", "--info", "--config-dir", "--experimental-rerun", "--version",
         "-m", "-c", "-p", "-i", "-cd")  # fmt: skip
"""Hydra's, of which the first is also -m."""


def overrides(arguments: Sequence[str], flags: Sequence[str] = ()) -> list[str]:
    """`arguments` as Hydra must see them: `backend=null` quoted, for its grammar reads a bare null as the absence of a
    value, and -m in front, for its parser reads nothing behind a flag that stands between overrides.

    Raises:
        Refused: a flag is none of `flags`.
    """
    for word in arguments:
        if word.startswith("-") and word.partition("=")[0] not in flags:
            close = difflib.get_close_matches(word, flags, n=1)
            raise Refused(f"there is no flag {word}{f'; did you mean {close[0]}?' if close else ''}")
    sweeping = [word for word in arguments if word in ("-m", "--multirun")]
    return [*sweeping[:1], *(_quoted(word) for word in arguments if word not in sweeping)]


def _quoted(word: str) -> str:
    return re.sub(r"(?<=[=,])null(?=,|$)", '"null"', word) if word.startswith("backend=") else word


def guarded(work: Callable[[], int]) -> int:
    """The exit status of `work`, or that of what it raised, once a line has said what it was."""
    with TolerantOutput() as output:
        status = _guarded(work)
    return output.status(status)


def _guarded(work: Callable[[], int]) -> int:
    # These signals count as an interrupt: a cell's worker must end with us, or it would go on using the device.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup(1) sets it
            signal.signal(number, signal.default_int_handler)
    # Hydra then raises what it would print over several lines with advice on tracebacks.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        return work()
    except Refused as reason:
        said = str(reason)
    except KeyboardInterrupt:
        print("interrupted: what was measured is kept; the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        from suites.explain import composing, explain

        if not isinstance(error, composing()):
            raise
        said = explain(error)
    print(f"refused: {one_line(said)}", file=sys.stderr)
    return REFUSED
