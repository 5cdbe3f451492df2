"""The arguments of a command made ready for Hydra, and errors turned into one line and an exit status."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from suites.checks import Refused, did_you_mean, is_file, shortened
from suites.output import TolerantOutput
from suites.path_arguments import quoted_path
from suites.text import one_line

REFUSED, INTERRUPTED = 2, 130

PROGRAM = "inference-suites"
"""The command that an installation has; see suites/command.py."""

FLAGS = ("--multirun", "--cfg", "--resolve", "--package", "--info", "--config-dir", "--version",
         "-m", "-c", "-p", "-i", "-cd")  # fmt: skip
"""Hydra's. Left out is --experimental-rerun, which reads a pickle: that runs whatever code is in the file."""

VALUES = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "--package": (),
    "--config-dir": (),
}
"""Flags that take a value, and the values that they take; any, where none are listed."""

SHORT = {"-m": "--multirun", "-c": "--cfg", "-p": "--package", "-i": "--info", "-cd": "--config-dir"}

LONGEST = 1500
"""Characters of a line that says why a command was refused."""


def program(command: str) -> str:
    """How this process was started, for the usage of a command such as advise."""
    if os.path.basename(sys.argv[0]) == PROGRAM:
        return f"{PROGRAM} {command}"
    return f"python -m suites.{command.replace('-', '_')}"


def overrides(arguments: Sequence[str], flags: Sequence[str] = ()) -> list[str]:
    """`arguments` as Hydra must read them: flags in front, for its parser reads nothing behind one that stands between
    overrides; `backend=null` quoted, for its grammar reads a bare null as the absence of a value; paths quoted.

    Raises:
        Refused: a flag is none of `flags`, lacks its value, or contradicts another; or an override sets what could run
            code.
    """
    given, words = _flags(arguments, flags)
    sweeping = "--multirun" in given
    for word in words:
        _check_no_code(word)
    front = [word for name, value in given.items() for word in ([name] if value is None else [f"{name}={value}"])]
    return [*front, *(quoted_path(_quoted(word), sweeping) for word in words)]


def _flags(arguments: Sequence[str], known: Sequence[str]) -> tuple[dict[str, str | None], list[str]]:
    """Flags by their long names with their values, and all other words."""
    given: dict[str, str | None] = {}
    words: list[str] = []
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("-"):
            words.append(word)
            continue
        flag, equal, value = word.partition("=")
        if flag not in known:
            raise Refused(f"there is no flag {shortened(word)}; {did_you_mean(flag, known)}choices: {', '.join(known)}")
        name = SHORT.get(flag, flag)
        given[name] = _value(flag, value if equal else None, waiting) if name in VALUES else None
        if equal and name not in VALUES:
            raise Refused(f"{flag} takes no value; leave out ={shortened(value)}")
    modes = [name for name in ("--multirun", "--cfg", "--info") if name in given]
    if len(modes) > 1:
        said = "--cfg shows the configuration of one cell; leave out -m" if modes[:2] == ["--multirun", "--cfg"] else ""
        raise Refused(said or f"{modes[0]} and {modes[1]} exclude one another; leave one out")
    if is_file(Path(given.get("--config-dir") or "") / "run.yaml"):
        raise Refused(
            f"--config-dir={given['--config-dir']} has a run.yaml, which would replace the project's; rename it"
        )
    if "--resolve" in given and "--cfg" not in given:
        raise Refused("--resolve goes with --cfg alone, e.g. --cfg job --resolve")
    return given, words


def _value(flag: str, value: str | None, waiting: list[str]) -> str:
    """The value of a flag, which may be the next word."""
    allowed = VALUES[SHORT.get(flag, flag)]
    if value is None and waiting and (waiting[0] in allowed or not (allowed or waiting[0].startswith("-"))):
        return waiting.pop(0)
    if value is None and "all" in allowed and SHORT.get(flag, flag) == "--info":
        return "all"
    if not value or (allowed and value not in allowed):
        choices = f"one of {', '.join(allowed)}" if allowed else "a value"
        raise Refused(f"{flag} needs {choices}, e.g. {flag} {allowed[0] if allowed else 'VALUE'}")
    return value


def _check_no_code(word: str) -> None:
    """
    Raises:
        Refused: an override sets Hydra's own node, by which it can be made to import and call whatever is named there.
    """
    key = re.sub(r"^[+~]+", "", word).partition("=")[0].strip()
    if re.match(r"hydra\b", key) or "@" in key:
        raise Refused(f"{shortened(key)} cannot be set here: Hydra's own settings can make it run code")
    if re.search(r"(^|[.{,\s])_target_\s*[:=]", word):
        raise Refused(f"{shortened(word)}: _target_ cannot be set here, for Hydra can be made to run what it names")


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
    for stream in (sys.stdout, sys.stderr):
        # Tables have letters such as the Greek mu, which a terminal without UTF-8 cannot show.
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(ValueError):
                stream.reconfigure(errors="backslashreplace")
    try:
        return work()
    except Refused as reason:
        said = str(reason)
    except KeyboardInterrupt:
        print("interrupted: what was measured is kept; the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        from suites.explain import composing, explain

        if isinstance(error, composing()):
            said = explain(error)
        elif isinstance(error, OSError) and error.filename is not None and not isinstance(error, BrokenPipeError):
            said = f"{error.filename}: {error.strerror}; check that this file or folder exists and that you may use it"
        else:
            raise
    print(f"refused: {one_line(shortened(said, LONGEST))}", file=sys.stderr)
    return REFUSED
