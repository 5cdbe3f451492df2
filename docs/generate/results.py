"""Tables of the front pages, made from committed records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from suites.latency.tables import latency_section
from suites.records.results_folder import MachineFolder
from suites.tables.markdown import markdown

ROOT = Path(__file__).resolve().parent.parent.parent
REFERENCE = ROOT / "results" / "reference"

H100 = "nvidia-h100-80gb-hbm3-driver-580.159.04"
H100_CELLS = (
    "bert_base-torch_eager-fp16-beed6eb47e03",
    "bert_base-torch_compile-fp16-63730a00b2f8",
    "bert_base-ort-fp16-6c16acdeb971",
    "bert_base-trt-fp16-ded98211d910",
    "bert_base-trt-int8-844c1e22a441",
    "bert_base-trt_plugin-int8-d3d9b9249944",
)
"""Cells that at least five fresh processes measured."""
H100_COLUMNS = ("backend", "precision", "p50 ms [95% CI]", "graph p50 ms [95% CI]", "seq/s", "cosine", "notes")

CPU = "cpu-amd-epyc-2-cores"
CPU_CELLS = (
    "minilm-torch_eager-fp32-2addc498e8fe",
    "minilm-torch_eager-int8-8b2c4c146011",
    "minilm-ort-fp32-371a1682cf3b",
    "minilm-ort-int8-ac4e82cb2e08",
)
CPU_COLUMNS = ("backend", "precision", "p50 ms [95% CI]", "seq/s", "cosine", "notes")

Row = Mapping[str, str]


def rows(machine: str, cells: Sequence[str], shape: tuple[int, int]) -> list[Row]:
    """
    Args:
        cells: ids of latency records.
        shape: batch and sequence length; rows without a shape are kept too.

    Returns:
        Rows of the latency table of these records, by column, in the order of `cells`.
    """
    folder = MachineFolder(REFERENCE, machine)
    records = [folder.record("latency", cell) for cell in cells]
    assert all(records), f"a record is missing in {folder.path}"
    lines = [line for line in latency_section([r for r in records if r]).splitlines() if line.startswith("|")]
    header, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    found = [dict(zip(header, row, strict=True)) for row in body]
    wanted = [row for row in found if (row["batch"], row["seq"]) in ((str(shape[0]), str(shape[1])), ("", ""))]
    order = [tuple(cell.split("-")[1:3]) for cell in cells]
    return sorted(wanted, key=lambda row: order.index((row["backend"], row["precision"])))


def short_table(found: Sequence[Row], columns: Sequence[str]) -> str:
    """The rows in markdown with some of their columns; notes keep the verdict alone."""
    return markdown(
        columns, [[_verdict(row[name]) if name == "notes" else row[name] for name in columns] for row in found]
    )


def _verdict(notes: str) -> str:
    marks = ("**fastest**", "**invalid**", "cannot win", "unsupported")
    return "; ".join(note for note in notes.split("; ") if note.startswith(marks))


def result_table() -> str:
    """BERT-base on an H100: the result that README opens with."""
    return short_table(rows(H100, H100_CELLS, (1, 128)), H100_COLUMNS)


def demo_table() -> str:
    """The demo's cells on a CPU, as a code block."""
    return f"```text\n{short_table(rows(CPU, CPU_CELLS, (8, 128)), CPU_COLUMNS)}\n```"


def result_bars() -> list[tuple[str, tuple[float, float]]]:
    """Label, p50 of a plain step and of a CUDA graph in ms, of each row of the result table."""

    def median(cell: str) -> float:
        return float(cell.partition(" ")[0])

    return [
        (f"{row['backend']} {row['precision']}", (median(row["p50 ms [95% CI]"]), median(row["graph p50 ms [95% CI]"])))
        for row in rows(H100, H100_CELLS, (1, 128))
    ]
