"""Origin of a record: version and commit of the suite, and the versions of its timing and its scoring."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING

from suites.root import ROOT

if TYPE_CHECKING:
    from suites.records.parts import Maker

VERSION = "0.2.0"
"""As in pyproject.toml."""

HARNESS = 4
"""Version of the timing. Raise it with every change that can affect a time: suites/measuring/clock.py, the boundary of
the timed section (sessions in backends/, suites/latency/measure.py, suites/switching*.py), warm-up, processes and
threads. Timings of another version are measured again. A record without this field has version 1."""

SCORING = 3
"""Version of inputs and scoring. Raise it with every change that can affect a figure of suite=accuracy or suite=layers:
tokens, masks, the FP32 reference, pooling, heads, metrics. Such records of another version are measured again. A record
without this field has version 1."""

CODE = ("suites", "backends")
"""Folders with the code that decides a record's figures. Changes in other folders do not make a checkout dirty."""


@cache
def maker() -> Maker:
    """Return the `version` of the suite, its `commit`, and `dirty`: whether the code differs from the commit.

    A copy without a repository, as in a container, reads them from SUITES_COMMIT: a commit, followed by "-dirty" if the
    code differs. For a copy that pip installed from a repository, pip wrote down the commit. The commit is empty, and
    `dirty` is false, if the code is not in its own git checkout, git is not installed, or git refuses the folder
    because another user owns it.
    """
    # Commands read the constants of this module where numpy may be missing.
    from suites.records.parts import Maker

    commit, dirty = "", False
    if match := re.fullmatch(r"([0-9a-f]{7,40})(-dirty)?", os.environ.get("SUITES_COMMIT", "")):
        return Maker(VERSION, match.group(1), bool(match.group(2)))
    if _git("rev-parse", "--show-toplevel") == str(ROOT):
        commit = _git("rev-parse", "--verify", "HEAD") or ""
        dirty = bool(commit) and _git("status", "--porcelain", "--", *CODE) != ""
    return Maker(VERSION, commit or _installed_commit(), dirty)


def _installed_commit() -> str:
    """Return the commit that pip installed this copy from (PEP 610); empty if pip did not install from a repository."""
    with contextlib.suppress(metadata.PackageNotFoundError, OSError, ValueError, AttributeError, TypeError):
        distribution = metadata.distribution("inference-suites")
        if os.path.realpath(str(distribution.locate_file(""))) == str(ROOT):
            for file in distribution.files or ():
                if file.name == "direct_url.json":
                    direct_url = json.loads(file.read_text(encoding="utf-8"))
                    return str(direct_url.get("vcs_info", {}).get("commit_id", ""))
    return ""


def typed_command() -> tuple[str, ...]:
    """Return the command line of this process as it was typed, without the folders of programs."""
    python, *words = sys.orig_argv
    if words and os.path.basename(words[0]) == "inference-suites":  # a script, which the system runs with Python
        return ("inference-suites", *words[1:])
    return (os.path.basename(sys.executable or python), *words)


def _git(*arguments: str) -> str | None:
    """Return the output of a git command, or None if it fails."""
    # Environment variables of a git hook, such as GIT_DIR, would select another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *arguments]
    try:
        completed = subprocess.run(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return completed.stdout.decode("utf-8", "replace").strip()
