"""Functions that run `suites.run` and its workers inside the test process. A new Python that imports torch takes
seconds of CPU time."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backends.json_codec import to_json
from suites import run, worker
from suites.running.job import A, Job
from suites.running.launch import Answer, Interpreter, read_answer


@contextlib.contextmanager
def _restored(environment: Mapping[str, str]) -> Iterator[None]:
    """Set `environment`. At the end restore it and everything else that a command line changes in its process."""
    root = logging.getLogger()
    saved = dict(os.environ), sys.argv, sys.orig_argv, Path.cwd(), root.handlers[:], root.level
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    os.environ.update(environment)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(saved[0])
        sys.argv, sys.orig_argv = saved[1:3]
        os.chdir(saved[3])
        root.handlers[:], root.level = saved[4:]


def command_line(
    arguments: list[str], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run `python -m suites.run ARGUMENTS` in `folder` and return its exit status and output."""
    out, err = io.StringIO(), io.StringIO()
    with _restored(environment), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        os.chdir(folder)
        sys.argv = [str(folder / "suites" / "run.py"), *arguments]
        sys.orig_argv = [sys.executable, "-m", "suites.run", *arguments]
        try:
            status = run.main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


_frozen = {"modules": 0}
"""Number of modules at the last call of gc.freeze."""


def freeze_modules() -> None:
    """Exclude the objects of newly imported modules from later garbage collections.

    A session collects garbage when it closes. With torch and transformers imported, each collection would take 0.3 s.
    """
    if len(sys.modules) >= _frozen["modules"] + 100:
        gc.collect()
        gc.freeze()
        _frozen["modules"] = len(sys.modules)


def stage(job: Job[A], folder: Path, interpreter: Interpreter, *unused: Any) -> Answer[A]:
    """Replace `suites.running.launch.call`: run the stage here, through the same files, without a time limit."""
    freeze_modules()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(json.dumps(to_json(job)))
    log = folder / "log.txt"
    logger = logging.getLogger("backends")
    handlers, level = logger.handlers[:], logger.level
    with log.open("w") as output, _restored(interpreter.environment), warnings.catch_warnings():
        os.chdir(folder)  # as a worker process does: a suite writes outputs to its current folder
        warnings.simplefilter("ignore")  # a worker's warnings go to its log; pytest would raise them
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            status = worker.main(job.stage, folder)
    logger.handlers[:], logger.level = handlers, level
    assert status == 0, log.read_text()
    return read_answer(job, json.loads((folder / "out.json").read_text()), log.read_text())
