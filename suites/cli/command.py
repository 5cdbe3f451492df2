"""Run the command `inference-suites COMMAND [arguments]`: each COMMAND is the `main` function of one module.

`inference-suites run ...` and `python -m suites.run ...` run the same function.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from suites.cli.command_line import PROGRAM, run_guarded
from suites.cli.output import run_with_tolerant_output
from suites.records.suite_version import VERSION
from suites.schema.refusals import Refused, did_you_mean, shortened

COMMANDS = {
    "run": ("suites.run", "measure a cell, or with -m each cell of a sweep, and print the table"),
    "search": ("suites.search", "find the parts of a model that need a higher precision"),
    "batch": ("suites.batch", "run many cells from a file, on all GPUs, in a given time"),
    "advise": ("suites.advise", "name the cheapest strategy for a trace of requests of several shapes"),
    "export": ("suites.export", "write a folder that serves the model of a record"),
    "deploy": ("suites.deploy", "write a model repository of Triton Inference Server for a record"),
    "compare": ("suites.compare", "compare the times of two records, backends, folders or commits"),
    "doctor": ("suites.doctor", "list the backends that this machine can run, and missing parts"),
    "choose": ("suites.choose", "name the fastest row of each shape, and how sure that is"),
    "capacity": ("suites.capacity", "name the cheapest serving configuration for a load and a latency bound"),
    "report": ("suites.report", "write the tables, or an HTML page, of a results folder from its records"),
    "merge": ("suites.merge", "join the results of several machines in one folder"),
    "process-noise": ("suites.process_noise", "calculate from records how much times differ between processes"),
}
"""Module and help line of each command. The command runs the `main` function of the module."""

EXAMPLES = (
    f"{PROGRAM} run backend=ort precision=int8",
    f"{PROGRAM} run -m backend=torch_eager,ort precision=fp32,int8",
)


def usage() -> str:
    """Return the text of --help."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "Compare ways of running BERT-style models: latency, accuracy and memory in one table.",
            "",
            f"usage: {PROGRAM} COMMAND [arguments]",
            f"       {PROGRAM} COMMAND --help",
            "",
            "commands:",
            *lines,
            "",
            "options:",
            "  -h, --help     show this help; after COMMAND, the help of the command",
            "  --version      print the version",
            "",
            "examples:",
            *(f"  {example}" for example in EXAMPLES),
            "",
            f"`python -m suites.COMMAND` and `{PROGRAM} COMMAND` are the same command.",
        ]
    )


def module_of(command: str) -> str:
    """Return the module of a command.

    Raises:
        Refused: The command does not exist. The message names the nearest command.
    """
    if command in COMMANDS:
        return COMMANDS[command][0]
    if "=" in command:
        raise Refused(f"{shortened(command)} is not a command; did you mean {PROGRAM} run {shortened(command)}?")
    word = command.lstrip("-").lower()
    hint = f"did you mean {word}? " if word in COMMANDS else did_you_mean(word, COMMANDS)
    raise Refused(f"there is no command {shortened(command)}; {hint}choices: {', '.join(COMMANDS)}")


def _refuse(command: str) -> int:
    module_of(command)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit status. The default is the command line of this process."""
    return run_with_tolerant_output(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    command, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or ["--help"]
    if command in ("--help", "-h", "help"):
        print(usage())
        return 0
    if command == "--version":
        print(f"{PROGRAM} {VERSION}")
        return 0
    if command not in COMMANDS:
        return run_guarded(lambda: _refuse(command))
    sys.argv[1:] = rest  # Hydra reads its arguments from here.
    return int(importlib.import_module(module_of(command)).main(rest))


if __name__ == "__main__":
    sys.exit(main())
