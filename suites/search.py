"""Find the parts of a model that need a higher precision: `python -m suites.search backend=... precision=...`.

The search scores a backend in FP16, BF16, INT8 or FP8 with no part in higher precision, with all parts, and then with
fewer and fewer parts. The parts stay in FP32 (keep_fp32) or get no Q/DQ (quantization.leave_out). Parts that the
command line names in these keys always keep the higher precision. A set of parts passes if its scores are within
task.tolerance and its smallest cosine to FP32 is at least search.cosine. Each step runs a cell of the accuracy suite
and a cell of the latency suite, so the tables show accuracy and latency of each set.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from suites.checks import Refused, at_least, between
from suites.clock import now_ns
from suites.command_line import CommandParser, guarded, overrides
from suites.machine_folders import without_folders
from suites.maker import typed_command
from suites.output import tolerantly
from suites.record import OK, Record, write_record
from suites.smallest import smallest
from suites.validity import shortfall

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from suites.progress import Display
    from suites.request import Request

KNOBS = {"fp16": "keep_fp32", "bf16": "keep_fp32", "int8": "quantization.leave_out", "fp8": "quantization.leave_out"}

HOLDING = {"keep_fp32": ("torch_eager", "trt"), "quantization.leave_out": ("ort", "trt", "trt_plugin")}
"""The backends that hold parts, by how they are told to."""

NEAR = {"fp16": 0.999, "bf16": 0.999, "int8": 0.95, "fp8": 0.95}
"""What search.cosine is where it is not given: rounding to INT8 alone costs more than FP16's whole allowance."""


KEYS = ("search.cosine", "search.steps", "search.seconds", "task.tolerance", "keep_fp32", "quantization.leave_out")
"""Keys that the help of this command shows."""


class Ended(Exception):
    """The steps or the time are used up."""


@dataclass
class Search:
    """Asks one path after another; `steps` is what a record holds of each: parts held, content or not, cells."""

    overrides: Sequence[str]
    display: Display
    steps: dict[frozenset[str], dict[str, Any]] = field(default_factory=dict)
    base: Record | None = None
    request: Request | None = None

    def run(self) -> Record:
        """The record of the search.

        Raises:
            Refused: a path cannot be judged, or nothing can be held in this precision.
        """
        from suites.run import checked

        config = _composed(self.overrides)
        checked(config)
        precision = str(config.precision.name.name)
        self._knob = _knob(config, precision)
        self._own = [str(pattern) for pattern in OmegaConf.select(config, self._knob)]
        self._cosine = between("search.cosine", float(config.search.cosine), 0, 1) or NEAR[precision]
        at_least("search.steps", config.search.steps, 0)
        at_least("search.seconds", config.search.seconds, 0)
        if config.until.name != "measure":
            raise Refused(f"until={config.until.name} measures nothing, by which a search goes; leave it out")
        self._limit = config.search.steps or sys.maxsize
        self._end_ns = now_ns() + config.search.seconds * 1e9 if config.search.seconds else float("inf")
        self._enough(frozenset())
        assert self.base is not None
        parts = list(self.base.artifacts["weights"]["parts"])
        reason, ended = "", False
        try:
            held = smallest(parts, self._enough)
            reason = "" if held is not None else f"{precision} with every part held is not within the tolerance either"
        except Ended:
            enough = [step["held"] for step in self.steps.values() if step["content"]]
            best = min(enough, key=len, default=None)
            held = None if best is None else [part for part in parts if part in best]
            ended = True
            taken = f"{len(self.steps)} step{'s' if len(self.steps) > 1 else ''}"
            reason = f"ended after {taken}; {'more' if best is None else 'fewer'} parts may be enough"
        wanted = {"cosine": self._cosine, "tolerance": self.base.scores["tolerance"]}
        cell = self.base.cell
        record = replace(
            self.base,
            cell=replace(cell, suite="search", options={**cell.options, "search": wanted}),
            outcome=OK if held is not None else "failed",
            reason=reason,
            measurements=(),
            checks=(),
            scores={"held": held, "parts": parts, "ended": ended, **wanted, "steps": list(self.steps.values())},
            command=typed_command(),
        )
        assert self.request is not None
        record = without_folders(record, self.request)
        write_record(self.request.results, record)
        return record

    def _enough(self, held: frozenset[str]) -> bool:
        if held in self.steps:
            return bool(self.steps[held]["content"])
        if self.steps and (len(self.steps) >= self._limit or now_ns() > self._end_ns):
            raise Ended
        judged = self._cell(held, "accuracy")
        if not judged.scores:
            raise Refused(f"{_named(held)}: {judged.outcome}: {judged.reason}")
        if self.base is None:
            self.base = judged
        near = judged.scores.get("cosine_min", 0.0) >= self._cosine
        content = near and not shortfall(judged.scores)
        timed = self._cell(held, "latency")
        self.steps[held] = {
            "held": sorted(held),
            "content": content,
            "accuracy": judged.cell.id,
            "latency": timed.cell.id,
        }
        return content

    def _cell(self, held: frozenset[str], suite: str) -> Record:
        from suites.pipeline import run_to_end
        from suites.request import resolve
        from suites.run import checked

        knob = f"{self._knob}=[{','.join(map(repr, [*self._own, *sorted(held.difference(self._own))]))}]"
        request = resolve(checked(_composed([*self.overrides, f"suite={suite}", knob])))
        self.request = request
        self.display.begin(f"{request.cell['model']} {request.backend} {suite}, {_named(held)}")
        ended = run_to_end(request, self.display.stage)
        self.display.end(ended.record.outcome, str(ended.path))
        return ended.record


def _knob(config: DictConfig, precision: str) -> str:
    """What holds parts in this precision.

    Raises:
        Refused: nothing does, or not on this backend.
    """
    if precision not in KNOBS:
        raise Refused(f"precision={precision} leaves nothing to hold in a higher one; use {', '.join(KNOBS)}")
    knob, backend = KNOBS[precision], str(config.backend.name)
    if backend not in HOLDING[knob]:
        raise Refused(f"backend={backend} holds no parts of {precision} ({knob}); use {', '.join(HOLDING[knob])}")
    if knob == "quantization.leave_out" and config.quantization.scheme.name == "implicit":
        raise Refused("quantization.scheme=implicit leaves TensorRT to choose; a search wants scheme=explicit")
    return knob


def _named(held: frozenset[str]) -> str:
    return f"{len(held)} parts held" if len(held) > 3 else ", ".join(sorted(held)) or "no part held"


def _composed(overrides: Sequence[str]) -> DictConfig:
    from hydra import compose, initialize_config_dir

    from suites import composing, explain
    from suites.usage import CONF

    composing.install()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            return compose("run", overrides=list(overrides))
        except Refused:
            raise
        except explain.composing():
            raise
        except Exception as error:  # Hydra raises errors of many types for what it cannot compose
            raise Refused(explain.unexplained(error, list(overrides))) from error


def _parser() -> CommandParser:
    from suites.usage import key_lines

    parser = CommandParser(
        "search",
        "Find the smallest set of parts of a model that need a higher precision for its scores to pass.\n\n"
        "The search runs an accuracy cell and a latency cell for each set of parts that it tries. A set passes if its\n"
        "scores are within task.tolerance and its smallest cosine to FP32 is at least search.cosine.\n"
        "Exit status: 0 a set passes, 1 no set passes, 2 the search was refused.",
        ("backend=trt precision=fp16", "backend=ort precision=int8 search.cosine=0.99"),
    )
    parser.add_argument(
        "words", nargs="*", metavar="key=value", help="a group or a key of the command run; see its help"
    )
    parser.add_argument_group("keys of the search and their defaults", textwrap.dedent(key_lines(KEYS)))
    return parser


def _run(arguments: Sequence[str]) -> int:
    from suites import local_settings
    from suites.progress import Display
    from suites.report import say_bad, shown, write_machine
    from suites.results_folder import MachineFolder

    local_settings.register()
    search = Search(overrides(arguments), Display())
    with search.display:
        record = search.run()
    assert search.request is not None
    folder = MachineFolder(search.request.results, record.environment["machine"])
    print(shown("search", [record], folder))
    write_machine(folder, ("search", "accuracy", "latency"))
    return int(say_bad([folder]) > 0 or record.outcome != OK)


def main(arguments: Sequence[str]) -> int:
    """Run the search and print its table. Return 0, 1 if no set of parts passed, or 2 if the search was refused."""
    parser = _parser()
    if not arguments or {"--help", "-h"} & set(arguments):
        parser.print_help()
        return 0

    def search() -> int:
        parser.refuse_options(arguments)
        return _run(arguments)

    return guarded(search)


if __name__ == "__main__":
    sys.exit(tolerantly(lambda: main(sys.argv[1:])))
