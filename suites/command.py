"""The command `inference-suites COMMAND [arguments]`: it runs the main function of a module of this package.

`python -m suites.run` and its like run the same functions.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from suites.checks import Refused, did_you_mean, shortened
from suites.command_line import PROGRAM, guarded
from suites.maker import VERSION
from suites.output import tolerantly

COMMANDS = {
    "run": ("suites.run", "measure a cell, or with -m each cell of a sweep, and print the table"),
    "search": ("suites.search", "find the parts of a model that need a higher precision"),
    "batch": ("suites.batch", "run many cells from a file, on all GPUs, in a given time"),
    "advise": ("suites.advise", "name the cheapest strategy for a trace of requests of several shapes"),
    "report": ("suites.report", "write the tables of a results folder from its records"),
    "process-noise": ("suites.process_noise", "measure from records how much times differ between processes"),
}
"""By command, the module whose `main` it runs, and its line in the help."""

EXAMPLE = f"{PROGRAM} run backend=ort precision=int8"


def usage() -> str:
    """The text of --help."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND [arguments]",
            "",
            "Compare ways of running BERT-style models: latency, accuracy and memory in one table.",
            "",
            "commands:",
            *lines,
            "",
            f"example: {EXAMPLE}",
            f"`{PROGRAM} COMMAND --help` explains a command; --version prints the version.",
        ]
    )


def module_of(command: str) -> str:
    """The module of a command.

    Raises:
        Refused: there is no such command; the message names the nearest.
    """
    if command in COMMANDS:
        return COMMANDS[command][0]
    if "=" in command:
        raise Refused(f"{shortened(command)} is no command; did you mean {PROGRAM} run {shortened(command)}?")
    word = command.lstrip("-").lower()
    hint = f"did you mean {word}? " if word in COMMANDS else did_you_mean(word, COMMANDS)
    raise Refused(f"there is no command {shortened(command)}; {hint}choices: {', '.join(COMMANDS)}")


def _refuse(command: str) -> int:
    module_of(command)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of this process; returns the exit status."""
    return tolerantly(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    command, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or ["--help"]
    if command in ("--help", "-h", "help"):
        print(usage())
        return 0
    if command == "--version":
        print(f"{PROGRAM} {VERSION}")
        return 0
    if command not in COMMANDS:
        return guarded(lambda: _refuse(command))
    sys.argv[1:] = rest  # Hydra reads them there
    return int(importlib.import_module(module_of(command)).main(rest))


if __name__ == "__main__":
    sys.exit(main())
