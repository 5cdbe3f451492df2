"""The accuracy of minilm in FP8 with some kinds of layers in FP16, from accuracy records of a CPU."""

from __future__ import annotations

from collections.abc import Mapping

from docs.generate.results import CPU, REFERENCE
from suites.records.results_folder import MachineFolder
from suites.tables.markdown import markdown
from suites.tasks.task_scores import TaskFigures, TaskScores

KINDS = {
    "*/attention/self/*": "query, key, value",
    "*/attention/output/*": "attention output",
    "*/intermediate/*": "first of the feed-forward block",
    "*/layer.?/output/*": "second of the feed-forward block",
}
"""Kinds of layers by the entry of quantization.leave_out that keeps them in FP16."""


def fp8_scores(task: str) -> Mapping[frozenset[str], TaskFigures]:
    """Return the scores of packed PyTorch in FP8 by the entries of quantization.leave_out."""
    scores = {}
    for record in MachineFolder(REFERENCE, CPU).records_of_backend("accuracy", "torch_packed"):
        if record.cell.precision == "fp8" and record.cell.lengths["task"] == task:
            recipe, result = record.cell.options["quantization"], record.result
            assert isinstance(recipe, dict)
            assert isinstance(result, TaskScores)
            assert result.figures
            scores[frozenset(recipe.get("leave_out", ()))] = result.figures
    return scores


def fp8_table() -> str:
    """Return a row for each set of kinds of layers in FP8, the lowest cosine first."""
    scores = sorted(fp8_scores("stsb").items(), key=lambda item: item[1].cosine_min)
    rows = [
        [_kinds(left_out), f"{figures.cosine_min:.5f}", f"{figures.cosine_mean:.5f}", f"{figures.value:.4f}"]
        for left_out, figures in scores
    ]
    return markdown(("layers in FP8", "smallest cosine", "mean cosine", "Spearman"), rows)


def _kinds(left_out: frozenset[str]) -> str:
    return ", ".join(name for entry, name in KINDS.items() if entry not in left_out) if left_out else "all"
