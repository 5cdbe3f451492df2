"""List the backends that this machine can run, and missing parts: `python -m suites.doctor [key=value ...]`.

It checks CPU, memory, GPUs, the configured interpreters, the libraries of each backend, the folders of results and
cache, free disk space and access to the hub. Then it lists the backends and precisions that can run here. Libraries are
imported only in processes of their own, each with a time limit, so a broken library is a line of the report.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from suites.cli.command_line import CommandParser, run_guarded
from suites.cli.output import run_with_tolerant_output
from suites.schema.refusals import Refused, did_you_mean, shortened

LIBRARIES = {"hydra": "hydra-core", "omegaconf": "omegaconf", "numpy": "numpy", "rich": "rich"}
"""Distribution of each module that every other command needs."""


def main(arguments: Sequence[str]) -> int:
    """Print the report. Return 0 if at least one backend can run, 1 otherwise, or 2 for bad arguments."""

    def run() -> int:
        options = _parser().parse_args(arguments)
        if missing := [name for name in LIBRARIES if not _can_be_imported(name)]:
            return _without_libraries(missing, options.json)
        return _diagnose(options.words, options.seconds, options.json)

    return run_guarded(run)


def _parser() -> CommandParser:
    parser = CommandParser(
        "doctor",
        "List the backends that this machine can run, and missing parts with a command for each.\n\n"
        "Each library is imported in a process of its own, so a broken library is a line of the report.\n"
        "Output: a line for each part of the machine and each backend, and for a missing part the command that\n"
        "installs it.\n"
        "Exit status: 0 at least one backend can run, 1 no backend can run, 2 the command was refused.",
        ("", "--json", "interpreter.trt=/opt/trt/bin/python"),
    )
    parser.add_argument(
        "words", nargs="*", default=[], metavar="key=value", help="interpreter.NAME=, results= or cache= of a run"
    )
    output = parser.add_argument_group("options")
    output.add_argument("--json", action="store_true", help="print the report as JSON")
    output.add_argument(
        "--seconds", type=float, default=120.0, metavar="S", help="time limit of each process; default 120"
    )
    return parser


def _can_be_imported(module: str) -> bool:
    try:
        importlib.import_module(module)
    except Exception:  # a library that is installed but broken can raise any exception
        return False
    return True


def _without_libraries(missing: Sequence[str], as_json: bool) -> int:
    """Print the libraries that are missing. The other checks need them."""
    import json

    from backends.finding import MISSING, Finding

    fix = f"{sys.executable} -m pip install --force-reinstall {{}}"
    findings = [
        Finding(LIBRARIES[name], MISSING, "cannot be imported", fix.format(LIBRARIES[name])) for name in missing
    ]  # fmt: skip
    if as_json:
        print(json.dumps({"checks": [vars(item) for item in findings], "backends": {}, "can_run": False}, indent=1))
        return 1
    for finding in findings:
        print(f"{finding.status:<9}{finding.name:<18}{finding.text}\n         fix: {finding.fix}")
    print("\nno backend can run; install these libraries, then run this command again")
    return 1


def _diagnose(words: Sequence[str], seconds: float, as_json: bool) -> int:
    from suites.cli import local_settings
    from suites.diagnosis.diagnosis import Settings, diagnose
    from suites.diagnosis.interpreter_checks import settings_finding
    from suites.diagnosis.report_text import report_json, report_text
    from suites.schema.config import RunConfig

    if not seconds > 0:
        raise Refused(f"--seconds must be above 0, not {seconds:g}")
    keys = _interpreter_keys()
    given = _chosen(words, [*(f"interpreter.{key}" for key in keys), "results", "cache"])
    invalid = None
    try:
        local = local_settings.interpreters()
    except Refused as error:
        local, invalid = {}, settings_finding(error)
    interpreters = {key: given.get(f"interpreter.{key}", local.get(key, "")) for key in keys}
    folders = {key: given.get(key, getattr(RunConfig, key)) for key in ("results", "cache")}
    diagnosis = diagnose(Settings(interpreters, folders, seconds), invalid)
    print(report_json(diagnosis) if as_json else report_text(diagnosis))
    return 0 if diagnosis.can_run else 1


def _interpreter_keys() -> list[str]:
    from suites.schema import run_schema

    try:
        return run_schema.interpreter_keys()
    except Refused:  # the description of a backend is invalid; the report names it
        return ["main"]


def _chosen(words: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    """Return the values by key.

    Raises:
        Refused: a word is not key=value, or its key is unknown.
    """
    for word in words:
        key, equal, _ = word.partition("=")
        if not equal:
            raise Refused(f"{shortened(word)!r} is not of the form key=value; choices: {', '.join(keys)}")
        if key not in keys:
            raise Refused(f"there is no key {shortened(key)}; {did_you_mean(key, keys)}choices: {', '.join(keys)}")
    return dict(word.partition("=")[::2] for word in words)


if __name__ == "__main__":
    sys.exit(run_with_tolerant_output(lambda: main(sys.argv[1:])))
