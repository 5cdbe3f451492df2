"""The plot of INT8 recipes, generated from committed records."""

from __future__ import annotations

from docs.generate.bars import bar_chart
from docs.generate.results import REFERENCE
from suites.accuracy.recipe_tables import COLUMNS, COMMON_OPTIONS, by_table, recipe_records, recipe_rows
from suites.records.results_folder import MachineFolder

MACHINE = "nvidia-h200-driver-580.159.04"
TABLE = "minilm, trained weights, stsb, trt tensorrt 8.6.0"
DEFAULT = "min-max, the default"


def recipe_losses() -> list[tuple[str, float]]:
    """Return recipe and loss of Spearman's correlation against FP32, in thousandths, as the table of recipes has it."""
    folder = MachineFolder(REFERENCE, MACHINE)
    records = dict(by_table(recipe_records(folder.records("accuracy"))))[TABLE]
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in recipe_rows(records)]
    losses = [
        (_short(row["recipe"]), -1000 * float(row["difference [95% CI]"].partition(" ")[0]))
        for row in rows
        if row["difference [95% CI]"]
    ]
    return sorted(losses, key=lambda recipe: recipe[1])


def _short(recipe: str) -> str:
    """Return the recipe without its calibration texts."""
    short = "; ".join(part for part in recipe.split("; ") if not part.startswith("calibrated on"))
    return DEFAULT if short in ("", COMMON_OPTIONS) else short


def recipe_plot() -> str:
    title = "minilm in INT8 through TensorRT's parser, H200: loss on STS-B against FP32, in thousandths"
    return bar_chart(
        title, ("loss of Spearman's correlation",), [(name, (loss,)) for name, loss in recipe_losses()], digits=2
    )
