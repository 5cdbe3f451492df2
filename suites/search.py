"""Find the parts of a model that need a higher precision: `python -m suites.search backend=... precision=...`.

The search scores a backend in FP16, BF16, INT8 or FP8 with no part in higher precision, with all parts, and then with
fewer and fewer parts. The parts stay in FP32 (keep_fp32) or get no Q/DQ (quantization.leave_out). Parts that the
command line names in these keys always keep the higher precision. A set of parts passes if its scores are within
task.tolerance and its smallest cosine to FP32 is at least search.cosine. Each step runs a cell of the accuracy suite
and a cell of the latency suite, so the tables show accuracy and latency of each set.
"""

from __future__ import annotations

import suites.cli.dependencies  # noqa: F401  # checks the libraries before the imports below need them

# isort: split
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from backends.registry import descriptions
from suites.asking.fitting_shape import minimal_set
from suites.asking.resolve_options import chosen_backend
from suites.cli.command_line import CommandParser, overrides, run_guarded
from suites.cli.output import run_with_tolerant_output
from suites.measuring.clock import now_ns
from suites.records.artifacts import Weights
from suites.records.record import OK, Record, write_record
from suites.records.search_result import SearchResult, SearchStep
from suites.records.suite_version import typed_command
from suites.running.machine_folders import without_folders
from suites.schema.refusals import Refused
from suites.statistics.validity import scores_of, shortfall

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from suites.asking.request import Request
    from suites.cli.display import Display

OPTION_BY_PRECISION = {
    "fp16": "keep_fp32",
    "bf16": "keep_fp32",
    "int8": "quantization.leave_out",
    "fp8": "quantization.leave_out",
}

DEFAULT_COSINE = {"fp16": 0.999, "bf16": 0.999, "int8": 0.95, "fp8": 0.95}
"""Default of search.cosine. The rounding to INT8 alone has a larger error than the limit for FP16 allows."""


KEYS = ("search.cosine", "search.steps", "search.seconds", "task.tolerance", "keep_fp32", "quantization.leave_out")
"""Keys that the help of this command shows."""


class BudgetSpent(Exception):
    """The limit of steps or of time is reached."""


@dataclass
class Search:
    """Search for a smallest set of parts in higher precision that is accurate enough.

    Attributes:
        steps: for each set of parts that was tried, the entry of the record: parts, whether they are enough, cells.
        base: accuracy record of the first step, with no part in higher precision.
        request: the last request.
    """

    overrides: Sequence[str]
    display: Display
    steps: dict[frozenset[str], SearchStep] = field(default_factory=dict)
    base: Record | None = None
    request: Request | None = None

    def run(self) -> Record:
        """Run the search, and write and return its record.

        Raises:
            Refused: a path has no accuracy scores, or no part can be kept in a precision higher than this one.
        """
        from suites.cli.composing import checked_config, composed

        config = composed(self.overrides)
        checked_config(config)
        precision = str(config.precision.name)
        self._knob = _knob(config, precision)
        self._given = [str(pattern) for pattern in OmegaConf.select(config, self._knob)]
        self._cosine = float(config.search.cosine) or DEFAULT_COSINE[precision]
        if config.until.name != "measure":
            raise Refused(f"until={config.until.name} measures nothing, but a search needs measurements; remove until=")
        self._limit = config.search.steps or sys.maxsize
        self._end_ns = now_ns() + config.search.seconds * 1e9 if config.search.seconds else float("inf")
        self._enough(frozenset())
        assert self.base is not None
        parts = list((self.base.artifacts.weights or Weights()).parts or ())
        reason, ended = "", False
        try:
            kept_parts = minimal_set(parts, self._enough)
            fault = f"{precision} with every part in higher precision is still outside the tolerance"
            reason = "" if kept_parts is not None else fault
        except BudgetSpent:
            accurate = [step.kept for step in self.steps.values() if step.passes]
            best = min(accurate, key=len, default=None)
            kept_parts = None if best is None else [part for part in parts if part in best]
            ended = True
            count = f"{len(self.steps)} step{'s' if len(self.steps) > 1 else ''}"
            reason = f"ended after {count}; a {'larger' if best is None else 'smaller'} set of parts may be enough"
        scores = scores_of(self.base)
        tolerance = scores.tolerance if scores else None
        assert tolerance is not None
        limits = {"cosine": self._cosine, "tolerance": tolerance}
        cell = self.base.cell
        record = replace(
            self.base,
            cell=replace(cell, suite="search", options={**cell.options, "search": limits}),
            outcome=OK if kept_parts is not None else "failed",
            reason=reason,
            measurements=(),
            checks=(),
            result=SearchResult(
                kept=None if kept_parts is None else tuple(kept_parts),
                parts=tuple(parts),
                steps=tuple(self.steps.values()),
                ended=ended,
                tolerance=tolerance,
                cosine=self._cosine,
            ),
            command=typed_command(),
        )
        assert self.request is not None
        record = without_folders(record, self.request)
        write_record(self.request.results, record)
        return record

    def _enough(self, kept_parts: frozenset[str]) -> bool:
        """Return whether a path with these parts in higher precision is accurate enough; run its cells if necessary."""
        if kept_parts in self.steps:
            return self.steps[kept_parts].passes
        if self.steps and (len(self.steps) >= self._limit or now_ns() > self._end_ns):
            raise BudgetSpent
        accuracy = self._run_cell(kept_parts, "accuracy")
        if (scores := scores_of(accuracy)) is None:
            raise Refused(f"{_described(kept_parts)}: {accuracy.outcome}: {accuracy.reason}")
        if self.base is None:
            self.base = accuracy
        near = scores.figures is not None and scores.figures.cosine_min >= self._cosine
        passes = near and not shortfall(scores)
        latency = self._run_cell(kept_parts, "latency")
        self.steps[kept_parts] = SearchStep(tuple(sorted(kept_parts)), passes, accuracy.cell.id, latency.cell.id)
        return passes

    def _run_cell(self, kept_parts: frozenset[str], suite: str) -> Record:
        from suites.asking.request import resolve
        from suites.cli.composing import checked_config, composed
        from suites.running.pipeline import run_to_end

        knob = f"{self._knob}=[{','.join(map(repr, [*self._given, *sorted(kept_parts.difference(self._given))]))}]"
        request = resolve(checked_config(composed([*self.overrides, f"suite={suite}", knob])))
        self.request = request
        self.display.begin(f"{request.cell['model']} {request.backend} {suite}, {_described(kept_parts)}")
        result = run_to_end(request, self.display.stage)
        self.display.end(result.record.outcome, str(result.path))
        return result.record


def _knob(config: DictConfig, precision: str) -> str:
    """Return the option that keeps parts in a precision higher than this one.

    Raises:
        Refused: there is no such option, or this backend does not have it.
    """
    if precision not in OPTION_BY_PRECISION:
        raise Refused(f"precision={precision} has no higher precision for parts; use {', '.join(OPTION_BY_PRECISION)}")
    knob, backend = OPTION_BY_PRECISION[precision], chosen_backend(str(config.backend))
    if knob not in backend.keeps_parts_by:
        others = [name for name, other in descriptions().items() if knob in other.keeps_parts_by]
        raise Refused(
            f"backend={backend.name} cannot keep parts of {precision} in higher precision ({knob}); "
            f"use {', '.join(others)}"
        )
    if knob == "quantization.leave_out" and config.quantization.scheme.name == "implicit":
        raise Refused(
            "with quantization.scheme=implicit TensorRT chooses the precision of each part; "
            "use quantization.scheme=explicit for a search"
        )
    return knob


def _described(kept_parts: frozenset[str]) -> str:
    if len(kept_parts) > 3:
        return f"{len(kept_parts)} parts in higher precision"
    return ", ".join(sorted(kept_parts)) or "no part in higher precision"


def _parser() -> CommandParser:
    from suites.cli.help import key_lines

    parser = CommandParser(
        "search",
        "Find the smallest set of parts of a model that need a higher precision for its scores to pass.\n\n"
        "The search runs an accuracy cell and a latency cell for each set of parts that it tries. A set passes if its\n"
        "scores are within task.tolerance and its smallest cosine to FP32 is at least search.cosine.\n"
        "Output: a line for each step, and a table of the sets with their scores and times. The record and the table\n"
        "are files below the folder of results=.\n"
        "Exit status: 0 a set passes, 1 no set passes, 2 the search was refused.",
        ("backend=trt precision=fp16", "backend=ort precision=int8 search.cosine=0.99"),
    )
    parser.add_argument(
        "words", nargs="*", metavar="key=value", help="a group or a key of the command run; see its help"
    )
    parser.add_argument_group("keys of the search and their defaults", textwrap.dedent(key_lines(KEYS)))
    return parser


def _run(arguments: Sequence[str]) -> int:
    from suites.cli import local_settings
    from suites.cli.display import Display
    from suites.records.results_folder import MachineFolder
    from suites.tables.write_tables import print_bad_records, terminal_tables, write_machine

    local_settings.register()
    search = Search(overrides(arguments), Display())
    with search.display:
        record = search.run()
    assert search.request is not None
    folder = MachineFolder(search.request.results, record.environment.machine)
    print(terminal_tables("search", [record], folder))
    write_machine(folder, ("search", "accuracy", "latency"))
    return int(print_bad_records([folder]) > 0 or record.outcome != OK)


def main(arguments: Sequence[str]) -> int:
    """Run the search and print its table. Return 0, 1 if no set of parts passed, or 2 if the search was refused."""
    parser = _parser()
    if not arguments or {"--help", "-h"} & set(arguments):
        parser.print_help()
        return 0

    def search() -> int:
        parser.refuse_options(arguments)
        return _run(arguments)

    return run_guarded(search)


if __name__ == "__main__":
    sys.exit(run_with_tolerant_output(lambda: main(sys.argv[1:])))
