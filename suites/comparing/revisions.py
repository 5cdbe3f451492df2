"""Read a git repository: commits, the records that a commit has, and a temporary working tree of a commit."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from suites.root import ROOT
from suites.schema.refusals import Refused, shortened

COMMITTED = "results/reference"
"""Folder of the committed records, relative to the repository."""


def find_commit(revision: str) -> str:
    """Return the full id of the commit that a revision names; "" if there is no such commit, or no repository."""
    if not revision or revision.startswith("-"):
        return ""
    found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    # `git rev-parse` prints the words of options that it does not use, so only an id counts.
    lines = found.decode("utf-8", "replace").split() if found else []
    return lines[-1] if lines and re.fullmatch("[0-9a-f]{40,64}", lines[-1]) else ""


def names_of_commits() -> list[str]:
    """Return the names of branches and tags, for the hint of a refusal."""
    listed = _git("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags")
    return listed.decode("utf-8", "replace").split() if listed else []


@contextlib.contextmanager
def committed_records(commit: str, folder: Path) -> Iterator[Path | None]:
    """Give a temporary results folder with the records that a commit has in `folder`; None if it has none there.

    Args:
        folder: results folder. If it is not in the repository, that of the committed records counts.
    """
    absolute = folder.resolve()
    inside = absolute.relative_to(ROOT).as_posix() if absolute.is_relative_to(ROOT) else COMMITTED
    archive = None
    for path in dict.fromkeys((inside, COMMITTED)):
        archive = archive or _git("archive", "--format=tar", commit, "--", path)
        inside = path if archive else inside
    if not archive:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="compare-records-") as temporary:
        tar = Path(temporary) / "records.tar"
        tar.write_bytes(archive)
        with tarfile.open(tar) as opened:
            opened.extractall(temporary, filter="data")
        yield Path(temporary) / inside


@contextlib.contextmanager
def working_tree(commit: str) -> Iterator[Path]:
    """Give a temporary folder with the code of a commit, as a git worktree that is removed at the end.

    Raises:
        Refused: git cannot create it.
    """
    with tempfile.TemporaryDirectory(prefix="compare-commit-") as temporary:
        tree = Path(temporary) / commit[:12]
        try:
            _run_git("worktree", "add", "--detach", "--force", str(tree), commit)
        except (OSError, subprocess.SubprocessError) as error:
            output = getattr(error, "stderr", None) or b""
            reason = shortened(output.decode("utf-8", "replace").strip() or str(error), 200)
            raise Refused(
                f"git cannot create a working tree of {commit[:12]}: {reason}; free space in TMPDIR"
            ) from None
        try:
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _git(*arguments: str) -> bytes | None:
    """Return the output of a git command in the project's folder; None if it fails."""
    try:
        return _run_git(*arguments)
    except (OSError, subprocess.SubprocessError):
        return None


def _run_git(*arguments: str) -> bytes:
    # Environment variables of a git hook, such as GIT_DIR, would select another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-c", "core.fsmonitor=false", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True
    ).stdout
