"""Run a short program in an interpreter with a time limit, and read the JSON that it prints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from suites.root import ROOT
from suites.running.launch import code_folder, why_not_started
from suites.running.process_tree import kill_group
from suites.text import one_line

SHOWN = 200
"""Longest message, in characters, of an interpreter that failed."""

CODE = "PYTHONPATH"

NOTHING: Mapping[str, str] = {}


class NoAnswer(Exception):
    """The interpreter gave no answer; the message is one line with the reason."""


@dataclass(frozen=True)
class Query:
    """Settings of all questions.

    Attributes:
        limit_s: time limit of a process in seconds.
    """

    limit_s: float

    def __call__(
        self, python: str, arguments: Sequence[str], given: str = "", environment: Mapping[str, str] = NOTHING
    ) -> Mapping[str, object]:
        """Run `python ARGUMENTS` and return the JSON object in the last line that it prints.

        Args:
            given: text for standard input.
            environment: additional environment variables.

        Raises:
            NoAnswer: it cannot be started, takes too long, fails or prints no JSON object.
        """
        try:
            with tempfile.TemporaryDirectory(prefix="suites-doctor-") as folder:
                return self._answer(python, arguments, given, {**environment, CODE: str(code_folder(Path(folder)))})
        except OSError:  # there is no writable temporary folder
            return self._answer(python, arguments, given, {**environment, CODE: str(ROOT)})

    def _answer(
        self, python: str, arguments: Sequence[str], given: str, environment: Mapping[str, str]
    ) -> Mapping[str, object]:
        path = os.pathsep.join(filter(None, [environment[CODE], os.environ.get(CODE, "")]))
        try:
            process = subprocess.Popen(
                [python, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                env={**os.environ, "PYTHONUTF8": "1", **environment, CODE: path},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = why_not_started(python, error) if isinstance(error, OSError) else str(error)
            raise NoAnswer(one_line(reason, SHOWN)) from None
        try:
            out, error_text = process.communicate(given, timeout=self.limit_s)
        except subprocess.TimeoutExpired:
            raise NoAnswer(f"no answer within {self.limit_s:g} s") from None
        except BrokenPipeError:
            out, error_text = "", ""
        finally:
            kill_group(process.pid, signal.SIGKILL)
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        return _parsed(out, error_text, process.returncode)


def _parsed(out: str, error: str, status: int) -> Mapping[str, object]:
    try:
        answer = json.loads((out.strip().splitlines() or [""])[-1])
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        return answer
    last = next(reversed((error.strip() or out.strip()).splitlines()), "no output")
    ended = f"exit status {status}" if status >= 0 else f"signal {-status}"
    raise NoAnswer(one_line(f"no answer ({ended}): {last.strip()}", SHOWN))
