"""What made a record: the version and commit of the suite, and the versions of what decides its figures."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

VERSION = "0.2.0"
"""As in pyproject.toml."""

HARNESS = 2
"""Version of the timing. Raise it with every change that can move a time: suites/clock.py, the boundary of what is
timed (sessions in backends/, suites/latency.py, suites/switching*.py), warm-up, processes and threads. Timings of
another version are measured again. Records that do not say are of version 1."""

SCORING = 2
"""Version of inputs and judgement. Raise it with every change that can move a figure of accuracy or layers: tokens,
masks, the FP32 reference, pooling, heads, metrics. Such records of another version are measured again. Records that do
not say are of version 1."""

ROOT = Path(__file__).resolve().parent.parent
CODE = ("suites", "backends")
"""What decides a record's figures. Changes elsewhere, as in results/, do not make a checkout dirty."""


@cache
def maker() -> Mapping[str, Any]:
    """Version of the suite, and its commit and whether the code differs from it.

    A copy without its repository, as in a container, has them from SUITES_COMMIT: a commit, with "-dirty" behind it if
    the code differs. A copy that pip installed from a repository has the commit that pip noted. Otherwise the commit is
    empty, and `dirty` false, where the code is not in a git checkout of its own, git is not installed, or git refuses
    the folder because another user owns it.
    """
    commit, dirty = "", False
    if given := re.fullmatch(r"([0-9a-f]{7,40})(-dirty)?", os.environ.get("SUITES_COMMIT", "")):
        return {"version": VERSION, "commit": given.group(1), "dirty": bool(given.group(2))}
    if _git("rev-parse", "--show-toplevel") == str(ROOT):
        commit = _git("rev-parse", "--verify", "HEAD") or ""
        dirty = bool(commit) and _git("status", "--porcelain", "--", *CODE) != ""
    return {"version": VERSION, "commit": commit or _installed_commit(), "dirty": dirty}


def _installed_commit() -> str:
    """The commit that pip installed this copy from (PEP 610); empty if it did not install from a repository."""
    with contextlib.suppress(metadata.PackageNotFoundError, OSError, ValueError, AttributeError, TypeError):
        found = metadata.distribution("inference-suites")
        if os.path.realpath(str(found.locate_file(""))) == str(ROOT):
            for file in found.files or ():
                if file.name == "direct_url.json":
                    noted = json.loads(file.read_text(encoding="utf-8"))
                    return str(noted.get("vcs_info", {}).get("commit_id", ""))
    return ""


def typed_command() -> tuple[str, ...]:
    """The command line of this process as it was typed, without folders of programs."""
    python, *words = sys.orig_argv
    if words and os.path.basename(words[0]) == "inference-suites":  # a script, which the system starts with its Python
        return ("inference-suites", *words[1:])
    return (os.path.basename(sys.executable or python), *words)


def _git(*arguments: str) -> str | None:
    """What git prints, or None if it fails."""
    # Variables of a hook, as GIT_DIR, would name another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *arguments]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip()
