"""Figures of GPU time on the H100 in docs/findings.md, and in the guide of FasterTransformer."""

from __future__ import annotations

import re
from functools import cache

import pytest
from conftest import ROOT

from suites.latency.figures import LatencyRow, latency_rows
from suites.latency.ranking import Ranking, rankings
from suites.records.measurement import REQUEST_PARTS
from suites.records.results_folder import MachineFolder
from suites.statistics.validity import judged
from suites.statistics.winners import power_note

FOLDER = MachineFolder(ROOT / "results" / "reference", "nvidia-h100-80gb-hbm3-driver-580.159.04")
Key = tuple[str, str, str, int]


def text_of(page: str) -> str:
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


FINDINGS = " ".join(text_of("findings.md").split())
GUIDE = text_of("guides/faster_transformer.md").partition("## Times on an H100")[2].partition("\n## ")[0]


@cache
def newest() -> dict[tuple[str, int], Ranking]:
    """Return the rankings of outputs with version 4 of the timing, by model and batch."""
    records = [record for record in FOLDER.records("latency") if record.harness == 4]
    found = rankings(records, judged(FOLDER.records("accuracy")))
    return {(r.workload.model, r.batch): r for r in found if r.workload.output}


@cache
def rows() -> dict[Key, LatencyRow]:
    """Return the rows of those rankings, by model, backend with its layout, precision and batch."""
    every = [(model, item.row) for (model, _), ranking in newest().items() for item in ranking.rows]
    named = [(model, row, row.record.cell) for model, row in every]
    return {
        (model, f"{cell.backend} {cell.options.get('layout', '')}".strip(), cell.precision, row.batch): row
        for model, row, cell in named
    }


def milliseconds(nanoseconds: float | None) -> str:
    assert nanoseconds is not None
    value = nanoseconds / 1e6
    return f"{value:.2f}" if value >= 10 else f"{value:.3f}"


def names(ranking: Ranking) -> list[list[str]]:
    return [[item.row.record.cell.backend, item.row.record.cell.precision] for item in ranking.rows]


def test_small_models() -> None:
    best = [newest()[model, batch] for batch in (1, 32) for model in ("bge_small", "ms_marco_minilm")]
    assert [names(ranking)[0] for ranking in best] == [["trt", "int8"]] * 2 + [["torch_compile", "fp16"]] * 2
    assert all(len(ranking.winners) == 1 for ranking in best)
    ms = [f"{milliseconds(ranking.rows[0].row.best.p50)} ms" for ranking in best]
    assert f"the parser in INT8 is, with {ms[0]} for bge_small and {ms[1]} for ms_marco_minilm" in FINDINGS
    assert f"torch.compile in FP16, with {ms[2]} for bge_small and {ms[3]} for ms_marco_minilm" in FINDINGS


def test_embeddings_of_minilm() -> None:
    batches = (1, 8, 32, 128)
    best = [newest()["all-MiniLM-L6-v2", batch] for batch in batches]
    expected = [["trt", "int8"], ["trt", "fp16"], *[["torch_compile", "fp16"]] * 2]
    assert [names(ranking)[0] for ranking in best] == expected
    assert all(len(ranking.winners) == 1 for ranking in best)
    ms = [f"{milliseconds(ranking.rows[0].row.best.p50)} ms" for ranking in best]
    assert f"the parser in INT8 with {ms[0]}, and at 8 x 128 the parser in FP16 with {ms[1]}" in FINDINGS
    assert f"torch.compile in FP16, with {ms[2]} and {ms[3]}" in FINDINGS
    ort = [rows()["all-MiniLM-L6-v2", "ort", "fp16", batch] for batch in batches]
    *first, last = (f"{milliseconds(row.best.p50)} ms" for row in ort)
    assert f"ONNX Runtime in FP16 takes {', '.join(first)} and {last}" in FINDINGS
    order = [backend for backend, _ in names(best[-1])]
    assert order.index("ort") < order.index("trt")


def test_fp8() -> None:
    batches = (1, 8, 32, 128)
    figures = {
        (backend, precision): [f"{milliseconds(best_of(backend, precision, batch))} ms" for batch in batches]
        for backend, precision in (("torch_packed", "fp8"), ("torch_compile", "fp8"), ("trt_plugin", "int8"))
    }
    packed, compiled, plugins = ((", ".join(ms[:-1]), ms[-1]) for ms in figures.values())
    assert f"It takes {packed[0]} and {packed[1]} at batch 1, 8, 32 and 128" in FINDINGS
    assert f"and torch.compile {compiled[0]} and {compiled[1]}." in FINDINGS
    assert f"packed plugins in INT8 take {plugins[0]} and {plugins[1]}. At 128 x 128 the card" in FINDINGS
    assert all(
        best_of("torch_packed", "fp8", batch)
        < min(best_of(backend, p, batch) for backend, p in figures if backend != "torch_packed")
        for batch in batches[:-1]
    )


def best_of(backend: str, precision: str, batch: int) -> float:
    """Return the lowest median of BERT-base with hidden states at batch x 128, in ns."""
    records = [record for record in FOLDER.records("latency") if record.cell.model == "bert_base"]
    return min(
        row.best.p50
        for row in latency_rows(records, {})
        if row.shape == (batch, 128)
        and (row.record.cell.backend, row.record.cell.precision) == (backend, precision)
        and row.record.cell.output == "hidden"
        and row.record.cell.lengths["distribution"] == "full"
    )


def test_int8_of_onnxruntime() -> None:
    figures = [
        f"{milliseconds(rows()['bge_small', 'ort', precision, batch].times[True].p50)} ms"
        for batch in (1, 32)
        for precision in ("int8", "fp16")
    ]
    assert (
        f"{figures[0]} in INT8 and {figures[1]} in FP16 at 1 x 128, and {figures[2]} and {figures[3]} at 32 x 128"
        in FINDINGS
    )


def bert(backend: str, batch: int) -> LatencyRow:
    return rows()["bert_base", backend, "fp16", batch]


FASTER = ("faster_transformer packed", "faster_transformer fixed")


@pytest.mark.parametrize(("table", "request_time"), [("GPU time of a pass", False), ("request", True)])
def test_the_guide_has_the_times_of_faster_transformer(table: str, request_time: bool) -> None:
    lines = GUIDE.partition(f"| {table} |")[2].partition("\n\n")[0].splitlines()[2:]
    written = [[cell.strip() for cell in line.split("|")[2:-1]] for line in lines]
    paths = [(FASTER[0], False), (FASTER[1], False), ("ort", False), ("ort", True)]
    assert written == [
        [
            milliseconds(row.request(graph) if request_time else row.times[graph].p50)
            for row in (bert(backend, batch) for batch in (1, 32, 128))
        ]
        for backend, graph in paths
    ]


def test_the_reasons_for_the_times_of_faster_transformer() -> None:
    guide = " ".join(GUIDE.split())
    fixed = {batch: bert(FASTER[1], batch) for batch in (1, 32, 128)}
    parts = fixed[1].parts(False)
    assert list(parts) == list(REQUEST_PARTS)
    _, _, enqueue, compute, _ = map(milliseconds, parts.values())
    assert f"returns after {enqueue} ms, and the step is done {compute} ms later" in guide
    growth, slower = re.findall(r"(\S+) times as long", guide)
    assert growth == f"{fixed[32].times[False].p50 / fixed[1].times[False].p50:.1f}"
    ratios = {bert(backend, 128).best.p50 / bert("ort", 128).times[False].p50 for backend in FASTER}
    assert slower == f"{min(ratios):.1f}"
    checked = [row for backend in FASTER for batch in (1, 32, 128) if (row := bert(backend, batch))]
    assert all(True not in row.times and len(row.samples(row.phase, False)) == 2 for row in checked)
    assert f"smallest cosine to FP32 is {min(row.cosine or 0 for row in checked):.5f}" in guide
    cards = {row.record.environment.uuid for row in (*checked, bert("ort", 1))}
    assert len(cards) == 2


def test_only_faster_transformer_does_not_reach_the_power_limit() -> None:
    records = [record for record in FOLDER.records("latency") if record.cell.model == "bert_base"]
    limited = {
        row.record.cell.backend: bool(power_note(row.record, {row.shape}))
        for row in latency_rows(records, {})
        if row.shape == (128, 128)
    }
    assert [backend for backend, reached in limited.items() if not reached] == ["faster_transformer"]


def test_the_finding_about_faster_transformer() -> None:
    fixed, ort = ([bert(backend, batch) for batch in (1, 128)] for backend in (FASTER[1], "ort"))
    first, last = (f"{milliseconds(row.best.p50)} ms" for row in fixed)
    assert f"takes {first} at 1 x 128 and {last} at 128 x 128 (`layout=fixed`)" in FINDINGS
    plain, graph = ([f"{milliseconds(row.times[graph].p50)} ms" for row in ort] for graph in (False, True))
    assert f"takes {plain[0]} and {plain[1]} without a graph, and {graph[0]} and {graph[1]} with one" in FINDINGS
