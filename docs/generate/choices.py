"""Examples of the output of suites.choose, generated from committed records."""

from __future__ import annotations

from collections.abc import Sequence

from docs.generate.results import REFERENCE
from suites.choosing.choice import choose
from suites.choosing.choice_text import text
from suites.choosing.limits import Limit
from suites.choosing.selection import Selection
from suites.latency.ranking import Baseline, rankings
from suites.records.results_folder import MachineFolder
from suites.schema.config import RunConfig
from suites.statistics.validity import judged
from suites.tables.distinctions import sources_of

H200 = "nvidia-h200-driver-580.159.04"


def choice_example() -> str:
    """Return the choice for BERT-base at 8x128 on the H200, compared with PyTorch in FP16."""
    return _example("bert_base", (), "torch_eager/fp16")


def nearest_example() -> str:
    """Return the text for a limit that no row of minilm meets."""
    return _example("minilm", (Limit("p50_ms", 0.2),), RunConfig.baseline)


def _example(model: str, limits: Sequence[Limit], named: str) -> str:
    """Return the output for one model at 8x128 on the H200, as a code block."""
    folder, baseline = MachineFolder(REFERENCE, H200), Baseline.parse(named)
    accuracy = folder.records("accuracy")
    ranked = rankings(folder.records("latency"), judged(accuracy), baseline)
    choices = [choose(ranking, limits) for ranking in Selection("h200", model, "8x128").of(ranked)]
    return f"```text\n{text(choices, baseline, sources_of(accuracy))}\n```"
