"""The plot of INT8 recipes, made from a committed table."""

from __future__ import annotations

from docs.generate.bars import bar_chart
from docs.generate.results import REFERENCE

TABLE = REFERENCE / "nvidia-h200-driver-580.159.04" / "tables" / "recipes.md"
SECTION = "### minilm, trained weights, stsb, trt tensorrt 8.6.0"
DEFAULT = "min-max, the default"


def recipe_losses() -> list[tuple[str, float]]:
    """Recipe and loss of Spearman's correlation against FP32, in thousandths, as the table has them."""
    section = TABLE.read_text(encoding="utf-8").partition(f"{SECTION}\n")[2].partition("\n### ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    header, _, *body = rows
    recipe, drop = header.index("recipe"), header.index("drop [95% CI]")
    losses = [(_short(row[recipe]), -1000 * float(row[drop].partition(" ")[0])) for row in body if row[drop]]
    return sorted(losses, key=lambda one: one[1])


def _short(recipe: str) -> str:
    """The recipe without its calibration texts; "as above" is a row in which every option has its default."""
    short = "; ".join(part for part in recipe.split("; ") if not part.startswith("calibrated on"))
    return DEFAULT if short in ("", "as above") else short


def recipe_plot() -> str:
    title = "minilm in INT8 through TensorRT's parser, H200: loss on STS-B against FP32, in thousandths"
    return bar_chart(
        title, ("loss of Spearman's correlation",), [(name, (loss,)) for name, loss in recipe_losses()], digits=2
    )
