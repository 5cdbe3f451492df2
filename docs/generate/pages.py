"""Generated files and blocks, and the generator of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from docs.generate.bars import bar_chart
from docs.generate.choices import choice_example, nearest_example
from docs.generate.columns import column_table
from docs.generate.families import family_table
from docs.generate.fp8 import fp8_table
from docs.generate.gpu_examples import build_table, kernel_table, launch_table
from docs.generate.limits import client_load_table, client_table, share_table
from docs.generate.loads import capacity_example, load_table
from docs.generate.recipes import recipe_plot
from docs.generate.reference import reference_page
from docs.generate.results import ROOT, demo_table, machine_index, result_bars, result_table
from docs.generate.tables import tables_page
from docs.generate.two_gpus import two_gpu_table

BLOCKS: Mapping[str, Callable[[], str]] = {
    "result": result_table,
    "demo": demo_table,
    "builds": build_table,
    "choose": choice_example,
    "capacity": capacity_example,
    "clients": client_table,
    "clientloads": client_load_table,
    "columns": column_table,
    "families": family_table,
    "fp8": fp8_table,
    "kernels": kernel_table,
    "launch": launch_table,
    "loads": load_table,
    "nearest": nearest_example,
    "machines": machine_index,
    "shares": share_table,
    "twogpus": two_gpu_table,
}
"""Generators of the text between `<!-- NAME: generated -->` and `<!-- end -->` in handwritten pages."""

PAGES_WITH_BLOCKS = (
    "README.md",
    "README.zh-CN.md",
    "docs/guides/alignment.md",
    "docs/guides/building.md",
    "docs/guides/checkpoint.md",
    "docs/guides/choose.md",
    "docs/guides/cpu.md",
    "docs/guides/data_out.md",
    "docs/guides/fp8.md",
    "docs/guides/kernels.md",
    "docs/guides/limits.md",
    "docs/guides/many_cells.md",
    "docs/guides/serving.md",
    "results/README.md",
)


def _result_plot() -> str:
    title = "BERT-base, batch 1, 128 tokens, NVIDIA H100: median of a forward pass in ms"
    return bar_chart(title, ("plain step", "CUDA graph"), result_bars())


FILES: Mapping[str, Callable[[], str]] = {
    "docs/images/recipes.svg": recipe_plot,
    "docs/images/result.svg": _result_plot,
    "docs/reference.md": reference_page,
    "docs/tables.md": tables_page,
}
"""Files that are generated as a whole."""

BLOCK = re.compile(r"(<!-- (\w+): generated -->\n+)(?:[^<\n].*?\n)??(\n*<!-- end -->)", re.DOTALL)


def with_blocks(text: str) -> str:
    """Return `text` with its generated blocks replaced."""
    return BLOCK.sub(lambda found: f"{found[1]}{BLOCKS[found[2]]()}\n{found[3]}", text)


def generated() -> dict[Path, str]:
    """Return the content of every generated file by path."""
    contents = {ROOT / name: make() for name, make in FILES.items()}
    for name in PAGES_WITH_BLOCKS:
        contents[ROOT / name] = with_blocks((ROOT / name).read_text(encoding="utf-8"))
    return contents


def write_all() -> list[Path]:
    """Write the files whose content has changed, and return their paths."""
    changed = []
    for path, text in generated().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed
