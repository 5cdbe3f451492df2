"""`python -m suites.run`: compose a configuration with Hydra, run its cell, or each cell of a multirun sweep.

Exit status: 0 when every cell ended ok or unsupported, 1 when one failed, timed out or was unavailable, 2 when
a request was refused. Nothing heavy is imported before a cell starts.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from suites.usage import CONF, USAGE, group_choices

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from suites.pipeline import Ended
    from suites.progress import Display


@dataclass
class Invocation:
    """What one command line asked for and how it went, over all its cells."""

    display: Display | None = None
    ended: list[Ended] = field(default_factory=list)
    refused: int = 0

    def run(self, config: DictConfig) -> None:
        from omegaconf import OmegaConf

        from suites.checks import Refused
        from suites.explain import added_keys, unknown_key
        from suites.pipeline import run_request
        from suites.progress import Display
        from suites.request import resolve

        if self.display is None:
            self.display = Display()
        with self.display:
            try:
                if added := added_keys(config):
                    raise Refused(unknown_key(added[0]))
                request = resolve(OmegaConf.to_object(config))  # type: ignore[arg-type]  # a RunConfig by its schema
                self.display.begin(f"{request.cell['model']} {request.backend} {request.cell['precision']}")
                ended = run_request(request, self.display.stage)
            except Refused as reason:
                self.refused += 1
                self.display.say(f"refused: {reason}")
                return
            self.ended.append(ended)
            self.display.end(ended.record.outcome, _line(ended))

    def status(self) -> int:
        if self.refused:
            return 2
        return int(any(e.record.outcome not in ("ok", "unsupported") for e in self.ended))

    def report(self) -> None:
        """Print this invocation's cells as tables, and bring results/tables up to date with all records there."""
        from suites.report import tables_of, write_tables

        measured = [(e.record, e.path) for e in self.ended if e.path is not None]
        if not measured:
            return
        records, paths = zip(*measured, strict=True)
        results = paths[0].parents[3]
        try:
            print("\n".join(tables_of(records[0].cell.suite, records, results).values()))
            write_tables(results)
        except (OSError, ValueError) as error:
            self.refused += 1
            print(f"refused: the tables were not written: {error}", file=sys.stderr)


def _line(ended: Ended) -> str:
    if ended.record.reason:
        return ended.record.reason
    if ended.path is None:
        built = ended.record.artifacts.get("built")
        return f"built in {built['seconds']:.0f} s and not measured" if built else "exported and not built"
    try:
        where = ended.path.relative_to(os.getcwd())
    except ValueError:
        where = ended.path
    again = f" (measured {ended.record.measured_at}; rerun=true measures again)" if ended.reused else ""
    return f"{where}{again}"


def quote_null(argument: str) -> str:
    """`backend=null` as Hydra must see it: unquoted, its grammar reads null as the absence of a value."""
    if not argument.startswith("backend="):
        return argument
    return re.sub(r"(?<=[=,])null(?=,|$)", '"null"', argument)


def main() -> int:
    """Run the command line; returns the exit status."""
    if "--help" in sys.argv[1:] or "-h" in sys.argv[1:]:
        # Hydra's own help composes every group of its own first, which takes over a second.
        print(USAGE.format(groups=group_choices()))
        return 0
    if "--cfg" in sys.argv[1:] and {"-m", "--multirun"} & set(sys.argv[1:]):
        print("refused: --cfg shows the configuration of one cell; leave out -m", file=sys.stderr)
        return 2
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from suites.config import RunConfig

    invocation = Invocation()
    # To be terminated is to be interrupted: the cell's worker must end with us, or it would go on using the device.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.argv[1:] = [quote_null(argument) for argument in sys.argv[1:]]
    # Hydra then raises what it would print over several lines with advice on tracebacks.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    ConfigStore.instance().store(name="schema", node=RunConfig)
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="run")(invocation.run)()
    except (HydraException, OmegaConfBaseException) as error:
        from suites.explain import explain

        invocation.refused += 1
        print(f"refused: {explain(error)}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted: what was measured is kept; the same command goes on from there", file=sys.stderr)
        return 130
    invocation.report()
    return invocation.status()


if __name__ == "__main__":
    sys.exit(main())
