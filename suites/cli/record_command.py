"""Commands about one record, which also take keys of the command run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from suites.cli.command_line import CommandParser, run_guarded
from suites.schema.refusals import Refused, shortened


def add_words(parser: CommandParser) -> None:
    """Add the last positional arguments: keys of the command run, as `words`."""
    parser.add_argument(
        "words",
        nargs="*",
        default=[],
        metavar="key=value",
        help="keys of the command run that a record does not have, such as model.path=, cache= or task.calibration=",
    )


def run_with_words(parser: CommandParser, arguments: Sequence[str], action: Callable[[argparse.Namespace], int]) -> int:
    """Parse the arguments and return the exit status of `action`, or 2 if the command was refused."""

    def run() -> int:
        options = parser.parse_intermixed_args(arguments)
        if bare := [word for word in options.words if "=" not in word]:
            raise Refused(f"{shortened(bare[0])!r} is not of the form key=value; see {parser.prog} --help")
        return action(options)

    return run_guarded(run)
