"""Run one cell, or with -m each cell of a sweep: `python -m suites.run`.

Hydra composes the configuration. With -m, hydra/launcher=NAME runs the cells of a sweep as jobs of a launcher. The exit
status is 0 if every cell ended as ok or unsupported, 1 if a cell failed, timed out or was unavailable, and 2 if a
request was refused. No large library is imported before a cell starts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from suites.cli.command_line import run_guarded
from suites.cli.help import help_text
from suites.cli.output import run_with_tolerant_output
from suites.schema.refusals import Refused, shortened
from suites.suite import BadSuite


def _run(arguments: Sequence[str]) -> int:
    if "--help" in arguments or "-h" in arguments:
        # Hydra would compose each of its own groups before it prints its help, which takes more than a second.
        print(help_text())
        return 0

    from suites.cli import hydra_errors
    from suites.cli.hydra_cells import PLAN, WIDE, compose_cells, shows_only
    from suites.cli.invocation import Invocation
    from suites.cli.plan_invocation import PlanInvocation
    from suites.hydra_jobs.launchers import split_launcher

    arguments, choice = split_launcher(arguments)
    if choice is not None and PLAN not in arguments:
        from suites.hydra_jobs.launched_invocation import LaunchedInvocation

        invocation: Invocation | PlanInvocation = LaunchedInvocation(choice, arguments)
    else:
        invocation = PlanInvocation() if PLAN in arguments else Invocation(wide=WIDE in arguments)
    try:
        compose_cells(arguments, invocation.check)
        invocation.measure()
    except Exception as error:
        invocation.report()
        if isinstance(error, (Refused, BadSuite, ModuleNotFoundError, *hydra_errors.composition_errors())):
            raise
        if isinstance(error, OSError):  # Raised by Hydra. A cell refuses a file that it cannot write.
            raise Refused(f"cannot read or write: {error}; check the folders named on the command line") from None
        if invocation.running:
            raise
        raise Refused(hydra_errors.unexplained(error, list(arguments))) from error
    if not (invocation.ended or invocation.refusals or shows_only(sys.argv[1:])):
        swept = [word for word in arguments if "(" in word]
        raise Refused(f"the sweep has no cells: {shortened(' '.join(swept) or ' '.join(arguments))} gives no value")
    invocation.report()
    return invocation.status()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit status. The default is the command line of this process."""
    return run_guarded(lambda: _run(sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    sys.exit(run_with_tolerant_output(main))
