"""Precision search: the algorithm alone, and on a model whose weights were made to overflow."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from math import log2
from pathlib import Path

import pytest
from conftest import ROOT, Cli
from safetensors.torch import load_file, save_file

from backends.parts import parts_of
from suites import search
from suites.record import read_records
from suites.smallest import smallest

Tiny = Callable[[str], tuple[Path, str]]
UNITS = [f"unit {number}" for number in range(64)]


@pytest.mark.parametrize("wanted", [[], [0], [63], [17, 18], [3, 40, 41], [0, 20, 40, 63]])
def test_what_is_needed_is_found_with_few_questions(wanted: list[int]) -> None:
    needed = {UNITS[number] for number in wanted}
    asked: list[frozenset[str]] = []

    def enough(chosen: frozenset[str]) -> bool:
        asked.append(chosen)
        return needed <= chosen

    assert smallest(UNITS, enough) == [UNITS[number] for number in wanted]
    k = len(wanted)
    assert len(asked) <= 4 + (2 * k * log2(64 / k) + 4 * k if k else 0)


def test_any_one_of_several_is_enough() -> None:
    assert smallest(UNITS, lambda chosen: bool(chosen & {UNITS[5], UNITS[50]})) in ([UNITS[5]], [UNITS[50]])


def test_where_all_is_not_enough_there_is_no_answer() -> None:
    assert smallest(UNITS, lambda chosen: False) is None


def test_where_more_is_worse_the_answer_is_still_enough() -> None:
    """Fewer than 3 of the first 8, or everything: no bisection can rely on an order."""

    def enough(chosen: frozenset[str]) -> bool:
        return len(chosen) == 64 or 0 < len(chosen & set(UNITS[:8])) < 3

    found = smallest(UNITS, enough)
    assert found is not None
    assert enough(frozenset(found))


@pytest.fixture
def faulty(tiny: Tiny, tmp_path: Path) -> Path:
    """A tiny BERT whose second feed-forward block leaves FP16's range, and is scaled back by what follows it."""
    folder, _ = tiny("bert")
    shutil.copytree(folder, tmp_path / "faulty")
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.1.output.dense.weight"] *= 1e7
    save_file(weights, tmp_path / "faulty" / "model.safetensors", {"format": "pt"})
    return tmp_path / "faulty"


def test_a_layer_that_overflows_is_found_and_repaired(
    faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "*/layer.1/output/*" in parts_of(faulty)
    results = tmp_path / "results"
    arguments = ("backend=torch_eager", "precision=fp16", "device=cpu", f"model.path={faulty}", "model.name=faulty")
    quick = ("batch=[2]", "sequence=[32]", "suite.seconds=0.02", "suite.warm_up_s=0.05")
    assert search.main([*arguments, *quick, f"results={results}", f"cache={tmp_path / 'cache'}"]) == 0
    (record,) = read_records(results, "search")
    assert record.scores["held"] == ["*/layer.1/output/*"]
    first, *_ = record.scores["steps"]
    assert (first["held"], first["content"], first["latency"]) == ([], False, "")
    printed = capsys.readouterr().out
    assert "NaN or Inf" in printed
    assert "Held back: layer.1/output." in printed
    assert (results / "tables" / "search.md").read_text() == printed.rstrip("\n") + "\n"


def test_int8_is_repaired_by_leaving_products_out(tmp_path: Path, cli: Cli) -> None:
    run = cli("backend=ort", "precision=int8", "device=cpu", "quantization.leave_out=['*/no/such/*']", "weights=random")
    assert run.returncode == 1
    assert "*/no/such/* matches none of" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["backend=ort", "precision=fp32"], "precision=fp32 leaves nothing to hold"),
        (["backend=no"], "backend"),
        (["backend=ort", "precision=fp16", "device=cpu"], "unsupported"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [f"results={tmp_path / 'results'}", f"cache={tmp_path / 'cache'}"]
    assert search.main([*arguments, "weights=random", *folders]) == 2
    refused = capsys.readouterr().err.splitlines()[-1]
    assert refused.startswith("refused: ")
    assert says in refused


def test_the_readme_tells_of_it() -> None:
    assert "python -m suites.search" in (ROOT / "README.md").read_text()
