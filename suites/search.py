"""Which parts of a model need a higher precision: `python -m suites.search backend=... precision=... [key=value ...]`.

Takes what `suites.run` takes. A path in FP16, BF16 or INT8 is judged by its task with no part held back, with all of
them, and then with fewer and fewer: parts in FP32 (keep_fp32), or out of Q/DQ (quantization.leave_out). Content is who
keeps task.tolerance and search.cosine, the smallest cosine to FP32. Each step is a cell of the accuracy suite, and each
that is content one of the latency suite, so that what precision costs stands beside what it gives.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from suites.checks import Refused
from suites.record import OK, Record, write_record
from suites.smallest import smallest
from suites.validity import past_tolerance

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

    from suites.progress import Display

KNOBS = {"fp16": "keep_fp32", "bf16": "keep_fp32", "int8": "quantization.leave_out", "fp8": "quantization.leave_out"}


@dataclass
class Search:
    """Asks one path after another; `steps` is what a record holds of each: parts held, content or not, cells."""

    overrides: Sequence[str]
    display: Display
    steps: dict[frozenset[str], dict[str, Any]] = field(default_factory=dict)
    base: Record | None = None
    results: Path | None = None

    def run(self) -> Record:
        """The record of the search.

        Raises:
            Refused: a path cannot be judged, or nothing can be held in this precision.
        """
        config = _composed(self.overrides)
        precision = str(config.precision.name.name)
        if precision not in KNOBS:
            raise Refused(f"precision={precision} leaves nothing to hold in a higher one; use {', '.join(KNOBS)}")
        self._knob, self._cosine = KNOBS[precision], float(config.search.cosine)
        self._enough(frozenset())
        assert self.base is not None
        parts = list(self.base.artifacts["weights"]["parts"])
        held = smallest(parts, self._enough)
        reason = "" if held is not None else f"{precision} with every part held is not within the tolerance either"
        wanted = {"cosine": self._cosine, "tolerance": self.base.scores["tolerance"]}
        cell = self.base.cell
        record = replace(
            self.base,
            cell=replace(cell, suite="search", options={**cell.options, "search": wanted}),
            outcome=OK if held is not None else "failed",
            reason=reason,
            measurements=(),
            checks=(),
            scores={"held": held, "parts": parts, **wanted, "steps": list(self.steps.values())},
            command=(os.path.basename(sys.executable), *sys.orig_argv[1:]),
        )
        assert self.results is not None
        write_record(self.results, record)
        return record

    def _enough(self, held: frozenset[str]) -> bool:
        if held in self.steps:
            return bool(self.steps[held]["content"])
        judged = self._cell(held, "accuracy")
        if not judged.scores:
            raise Refused(f"{_named(held)}: {judged.outcome}: {judged.reason}")
        if self.base is None:
            self.base = judged
        near = judged.scores.get("cosine_min", 0.0) >= self._cosine
        content = near and not past_tolerance(judged.scores)
        timed = self._cell(held, "latency") if content else None
        self.steps[held] = {
            "held": sorted(held),
            "content": content,
            "accuracy": judged.cell.id,
            "latency": timed.cell.id if timed else "",
        }
        return content

    def _cell(self, held: frozenset[str], suite: str) -> Record:
        from omegaconf import OmegaConf

        from suites.pipeline import run_request
        from suites.request import resolve

        knob = f"{self._knob}=[{','.join(repr(part) for part in sorted(held))}]"
        request = resolve(OmegaConf.to_object(_composed([*self.overrides, f"suite={suite}", knob])))  # type: ignore[arg-type]
        self.results = request.results
        self.display.begin(f"{request.cell['model']} {request.backend} {suite}, {_named(held)}")
        ended = run_request(request, self.display.stage)
        self.display.end(ended.record.outcome, str(ended.path))
        return ended.record


def _named(held: frozenset[str]) -> str:
    return f"{len(held)} parts held" if len(held) > 3 else ", ".join(sorted(held)) or "no part held"


def _composed(overrides: Sequence[str]) -> DictConfig:
    from hydra import compose, initialize_config_dir

    from suites.usage import CONF

    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("run", overrides=list(overrides))


def main(arguments: Sequence[str]) -> int:
    """Run the search and print its table; returns 0, 1 if nothing was enough, 2 if it was refused."""
    if not arguments or {"--help", "-h"} & set(arguments):
        print(__doc__)
        return 0
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from suites.config import RunConfig
    from suites.explain import explain
    from suites.progress import Display
    from suites.report import tables_of, write_tables

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ["HYDRA_FULL_ERROR"] = "1"
    ConfigStore.instance().store(name="schema", node=RunConfig)
    display = Display()
    search = Search(arguments, display)
    try:
        with display:
            record = search.run()
        assert search.results is not None
        print(tables_of("search", [record], search.results)["search"])
        write_tables(search.results)
    except (HydraException, OmegaConfBaseException) as error:
        print(f"refused: {explain(error)}", file=sys.stderr)
        return 2
    except Refused as reason:
        print(f"refused: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what was measured is kept; the same command goes on from there", file=sys.stderr)
        return 130
    return int(record.outcome != OK)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
