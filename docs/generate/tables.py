"""The page that explains tables, generated from their legends."""

from __future__ import annotations

from suites.accuracy import recipe_tables
from suites.accuracy import tables as accuracy_tables
from suites.alignment import tables as alignment_tables
from suites.building import tables as building_tables
from suites.ceilings import tables as ceiling_tables
from suites.kernels import tables as kernel_class_tables
from suites.latency import gpu_and_request, workload_tables
from suites.latency import tables as latency_tables
from suites.launch import tables as launch_tables
from suites.layers import kernel_tables
from suites.layers import tables as layer_tables
from suites.limits import tables as limits_tables
from suites.serving import stream_tables
from suites.serving import tables as serving_tables
from suites.switching import pair_tables
from suites.switching import tables as switching_tables
from suites.tables import search_tables
from suites.tritonserver import tables as triton_tables

LEGENDS = (
    ("Latency", "latency.md", "How fast is one forward pass?", latency_tables.LEGEND),
    (
        "GPU time and request time",
        "gpu_and_request.md",
        "Is the row that is fastest on the GPU also the fastest by request time?",
        gpu_and_request.LEGEND,
    ),
    ("Workloads", "workloads.md", "How fast is a batch of sequences of different lengths?", workload_tables.LEGEND),
    ("Accuracy", "accuracy.md", "How far are the results on a task from those of FP32?", accuracy_tables.LEGEND),
    (
        "INT8 recipes",
        "recipes.md",
        "Which INT8 settings keep the accuracy, and how fast are they?",
        recipe_tables.LEGEND,
    ),
    ("Precision search", "search.md", "Which parts of a model must stay in FP32?", search_tables.LEGEND),
    ("Layers", "layers.md", "Where in the model do the outputs leave FP32?", layer_tables.LEGEND),
    ("Switching", "switching.md", "How much does a change of shape cost?", switching_tables.LEGEND),
    ("Shape pairs", "switching_pairs.csv", "How much does each single change of shape cost?", pair_tables.LEGEND),
    ("Serving", "serving.md", "Which load does a server carry at which latency?", serving_tables.LEGEND),
    ("Streams", "streams.md", "When do several streams carry more than larger batches?", stream_tables.LEGEND),
    (
        "Triton",
        "tritonserver.md",
        "How much latency does a Triton server add under load, and how much load does its batcher add?",
        triton_tables.LEGEND,
    ),
    (
        "Building",
        "building.md",
        "How do build options change the build time and the engine, and are two builds the same?",
        building_tables.LEGEND,
    ),
    (
        "Ceilings",
        "ceilings.md",
        "How fast are the products, copies and launches of this machine?",
        ceiling_tables.LEGEND,
    ),
    (
        "Alignment",
        "alignment.md",
        "How much time do sizes take that are no multiples of 8, 16, 32 or 64?",
        alignment_tables.LEGEND,
    ),
    (
        "Launch",
        "launch.md",
        "How long does the host take to enqueue a step, and how long does the GPU wait for it?",
        launch_tables.LEGEND,
    ),
    (
        "Limits",
        "limits.md",
        "How fast is a step on a share of the SMs, must its engine be built there, and how much do two clients of "
        "one GPU slow each other?",
        limits_tables.LEGEND,
    ),
    (
        "Kernels by class",
        "kernel_classes.md",
        "Which classes of kernels take the time of a step, and why is a lower precision not faster?",
        kernel_class_tables.LEGEND,
    ),
    ("Kernels", "kernels.md", "Which kernels take the time of one pass?", kernel_tables.LEGEND),
)
"""Title, file in the `tables` folder of a machine, question and legend of each table."""

INTRODUCTION = """\
# Reading tables

The suite computes every table from records. `python -m suites.report` writes the tables of `results/runs` again, and
`python -m suites.report FOLDER` those of another folder. Rows from different GPUs, drivers or CPUs are never in one
table. If a backend does not support a cell, its row has the word `unsupported` and the reason.

A run ends with a short table that fits into a terminal of 80 columns. It has the rows of the run, the baseline, and the
fastest rows that were measured before for the same model and shape. Rows of the run begin with a `*`. `ratio` says how
many times as fast a row is as the baseline, which is `torch_eager` in FP32; `baseline=ort/fp16` names another. The time
is that of a step; with `rank=request` it is that of a request. `--wide` prints the tables with every column instead, as
they are in the files.

In these files, a line of a table has about 120 characters. Long notes are in a numbered list below the table. A table
with many columns is split into several parts.

The texts below are the legends of the tables. The [glossary](../README.md#glossary) explains cell, record, backend,
profile, engine and strategy.
"""


def tables_page() -> str:
    """Return the page in markdown."""
    sections = [f"## {title}\n\n*{question}* (`{file}`)\n\n{legend}\n" for title, file, question, legend in LEGENDS]
    return "\n".join([INTRODUCTION, *sections])
