"""Tables of the README files, generated from committed records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from suites.choosing.results_index import results_index
from suites.latency.ranking_end_tables import latency_end_tables
from suites.latency.tables import workload_rows
from suites.records.results_folder import MachineFolder, machine_folders
from suites.schema.config import RunConfig
from suites.tables.distinctions import distinctions
from suites.tables.end_table import RunScope, rendered
from suites.tables.markdown import NOTE, VERDICT, joined, markdown

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
    "bert_base-torch_packed-fp8-39c2f6f276e1",
)
"""Cells that at least five fresh processes measured, except the last, which has two."""
H100_COLUMNS = ("backend", "precision", "p50 ms [95% CI]", "graph p50 ms [95% CI]", "seq/s", "cosine", "notes")

CPU = "cpu-intel-r-xeon-r-processor-2-cores"
CPU_CELLS = (
    "minilm-torch_eager-fp32-faec7c2df727",
    "minilm-torch_compile-fp32-58bed64f1a8c",
    "minilm-torch_compile-int8-84cdfe3b551d",
    "minilm-ort-fp32-4012d3d11f14",
    "minilm-ort-int8-698c2a9a5a09",
    "minilm-ort-int8-77c5cc0bc9ef",
    "minilm-openvino-fp32-ff07c9427c6a",
    "minilm-openvino-int8-f5fa1562ebf9",
)
CPU_SHAPE = "8x128:"
"""First word of the title of the shape that the README shows."""

Row = Mapping[str, str]


def rows(machine: str, cells: Sequence[str], shape: tuple[int, int]) -> list[Row]:
    """
    Args:
        cells: ids of latency records.
        shape: batch and sequence length. Rows without a shape are included too.

    Returns:
        Rows of the latency table of these records, by column, in the order of `cells`.
    """
    folder = MachineFolder(REFERENCE, machine)
    records = [record for cell in cells if (record := folder.record("latency", cell))]
    assert len(records) == len(cells), f"a record is missing in {folder.path}"
    _, table = workload_rows(records, distinctions(records), {})
    of_shape = [row for row in table if (row.get("batch"), row.get("seq")) in (tuple(map(str, shape)), (None, None))]
    order = [tuple(cell.split("-")[1:3]) for cell in cells]
    return sorted(of_shape, key=lambda row: order.index((row["backend"], row["precision"])))


def short_table(table: Sequence[Row], columns: Sequence[str]) -> str:
    """Return the rows in markdown with some of their columns. Notes have the verdict only."""
    rows_of_cells = [[_verdicts(row) if name == "notes" else row.get(name, "") for name in columns] for row in table]
    return markdown(columns, rows_of_cells)


def _verdicts(row: Row) -> str:
    """Return the notes of a row that begin with a verdict, each without the part after a semicolon.

    The reason of an unsupported row is left out, because it would make the lines too long.
    """
    verdicts = [note.partition(";")[0] for note in row["notes"].split(NOTE) if VERDICT.match(note)]
    return joined(*("unsupported" if text.startswith("unsupported:") else text for text in verdicts))


def result_table() -> str:
    """Return the first table of README: BERT-base on an H100."""
    return short_table(rows(H100, H100_CELLS, (1, 128)), H100_COLUMNS)


def demo_table() -> str:
    """Return the table at the end of the demo on a CPU, with one shape and without headings, as a code block."""
    folder = MachineFolder(REFERENCE, CPU)
    records = [record for cell in CPU_CELLS if (record := folder.record("latency", cell))]
    (table,) = latency_end_tables(RunScope(folder, records, frozenset(CPU_CELLS), RunConfig.baseline))
    shown = [group for group in table.groups if group.title.startswith(CPU_SHAPE)]
    text = rendered(replace(table, headings=[], groups=shown, remarks=[]))
    return f"```text\n{text.strip(chr(10))}\n```"


def result_bars() -> list[tuple[str, tuple[float, float]]]:
    """Return for each row of the result table its label, and p50 in ms of a plain step and of a CUDA graph."""

    def median(cell: str) -> float:
        return float(cell.partition(" ")[0])

    return [
        (f"{row['backend']} {row['precision']}", (median(row["p50 ms [95% CI]"]), median(row["graph p50 ms [95% CI]"])))
        for row in rows(H100, H100_CELLS, (1, 128))
    ]


def machine_index() -> str:
    """Return the index of the committed results for results/README.md."""
    return results_index(machine_folders(REFERENCE), REFERENCE.parent)
