"""Precision search: the algorithm alone, and on a model whose weights are changed so that they overflow."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from math import log2
from pathlib import Path

import pytest
from conftest import ROOT, Cli, json_of, table_in
from markdown_rows import rows
from safetensors.torch import load_file, save_file

from backends.model.encoder_parts import encoder_parts
from suites import search
from suites.asking.fitting_shape import minimal_set
from suites.records.results_folder import read_records
from suites.tables.markdown import without_legend

Tiny = Callable[[str], tuple[Path, str]]
UNITS = [f"unit {number}" for number in range(64)]


@pytest.mark.parametrize("numbers", [[], [0], [63], [17, 18], [3, 40, 41], [0, 20, 40, 63]])
def test_the_needed_parts_are_found_in_few_steps(numbers: list[int]) -> None:
    needed = {UNITS[number] for number in numbers}
    asked: list[frozenset[str]] = []

    def enough(chosen: frozenset[str]) -> bool:
        asked.append(chosen)
        return needed <= chosen

    assert minimal_set(UNITS, enough) == [UNITS[number] for number in numbers]
    k = len(numbers)
    assert len(asked) <= 4 + (2 * k * log2(64 / k) + 4 * k if k else 0)


def test_one_of_several_sufficient_parts_is_found() -> None:
    assert minimal_set(UNITS, lambda chosen: bool(chosen & {UNITS[5], UNITS[50]})) in ([UNITS[5]], [UNITS[50]])


def test_there_is_no_answer_if_all_parts_are_not_enough() -> None:
    assert minimal_set(UNITS, lambda chosen: False) is None


def test_the_answer_is_sufficient_even_if_more_parts_are_worse() -> None:
    """Three of the first eight parts are too many, unless all parts are kept: no bisection can rely on an order."""

    def enough(chosen: frozenset[str]) -> bool:
        return len(chosen) == 64 or 0 < len(chosen & set(UNITS[:8])) < 3

    kept = minimal_set(UNITS, enough)
    assert kept is not None
    assert enough(frozenset(kept))


@pytest.fixture
def faulty(tiny: Tiny, tmp_path: Path) -> Path:
    """A tiny BERT whose second feed-forward block exceeds the range of FP16. The next layer scales its output back."""
    folder, _ = tiny("bert")
    shutil.copytree(folder, tmp_path / "faulty")
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.1.output.dense.weight"] *= 1e7
    save_file(weights, tmp_path / "faulty" / "model.safetensors", {"format": "pt"})
    return tmp_path / "faulty"


@pytest.mark.usefixtures("in_process_stages")
def test_a_layer_that_overflows_is_found_and_repaired(
    faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "*/layer.1/output/*" in encoder_parts(faulty)
    results = tmp_path / "results"
    arguments = ("backend=torch_eager", "precision=fp16", "device=cpu", f"model.path={faulty}", "model.name=faulty")
    quick = ("batch=[2]", "sequence=[32]", "suite.seconds=0.02", "suite.warm_up_s=0.05")
    assert search.main([*arguments, *quick, f"results={results}", f"cache={tmp_path / 'cache'}"]) == 0
    (record,) = read_records(results, "search")
    assert json_of(record)["scores"]["held"] == ["*/layer.1/output/*"]
    first, *_ = json_of(record)["scores"]["steps"]
    assert (first["held"], first["content"]) == ([], False)
    assert first["latency"]
    printed = capsys.readouterr().out
    assert "NaN or Inf" in printed
    assert "Kept in FP32: layer.1/output." in printed
    assert re.search(r"\| layer\.1/output +\| yes .*\| [+-]\d+\.\d%( \(tie\))? +\|", printed)
    shown = printed.partition("The columns are explained in")[0].rstrip()
    assert without_legend(table_in(results, "search").read_text()).rstrip().endswith(shown)
    # Every step was timed, but the other tables contain only the first and the last.
    assert all(step["latency"] for step in json_of(record)["scores"]["steps"])
    assert len(json_of(record)["scores"]["steps"]) > 2
    table_rows = {table: rows(table_in(results, table).read_text()) for table in ("accuracy", "latency")}
    assert len(table_rows["accuracy"]) == len([row for row in table_rows["latency"] if row["batch"]]) == 2


def test_suite_layers_names_the_layer_that_overflows(faulty: Path, fast_cli: Cli, tmp_path: Path) -> None:
    run = fast_cli("suite=layers", "backend=torch_eager", "precision=fp16", "device=cpu", f"model.path={faulty}",
                   "model.name=faulty", "batch=[2]", "sequence=[32]", "layers.chunk=3")  # fmt: skip
    assert run.returncode == 0, run.stderr
    (record,) = read_records(tmp_path / "results", "layers")
    broken = [layer["point"] for layer in json_of(record)["scores"]["layers"] if layer["nonfinite"]]
    assert json_of(record)["scores"]["first"] == broken[0] == "1/down"
    assert len(json_of(record)["scores"]["layers"]) == 11


def test_a_pattern_without_a_match_is_refused(fast_cli: Cli, tiny: Tiny) -> None:
    run = fast_cli("backend=ort", "precision=int8", "device=cpu", "quantization.leave_out=['*/no/such/*']",
                   f"model.path={tiny('bert')[0]}", "model.name=tiny")  # fmt: skip
    assert run.returncode == 1
    assert "*/no/such/* matches none of" in run.stderr


@pytest.fixture
def coarse(tiny: Tiny, tmp_path: Path) -> Path:
    """A tiny BERT with one very large value in the input of its second feed-forward block: INT8 rounds all other
    values to 0."""
    folder, _ = tiny("bert")
    shutil.copytree(folder, tmp_path / "coarse")
    weights = {name: x * 10 if x.ndim == 2 and ".layer." in name else x
               for name, x in load_file(folder / "model.safetensors").items()}  # fmt: skip
    weights["encoder.layer.1.intermediate.dense.bias"][0] = 20_000
    weights["encoder.layer.1.output.dense.weight"][:, 0] = 1e-6
    save_file(weights, tmp_path / "coarse" / "model.safetensors", {"format": "pt"})
    return tmp_path / "coarse"


SEARCHED = ("backend=ort", "precision=int8", "device=cpu", "model.name=coarse", "quantization.samples=8", "batch=[2]",
            "sequence=[32]", "suite.seconds=0.02", "suite.warm_up_s=0.05", "task.tolerance=0.5")  # fmt: skip


@pytest.mark.usefixtures("in_process_stages")
def test_int8_is_repaired_by_excluding_products(
    coarse: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = (f"model.path={coarse}", f"results={tmp_path / 'results'}", f"cache={tmp_path / 'cache'}")
    assert search.main([*SEARCHED, *folders]) == 0
    (record,) = read_records(tmp_path / "results", "search")
    assert json_of(record)["scores"]["held"] == ["*/layer.1/output/*"]
    assert json_of(record)["scores"]["cosine"] == 0.95
    assert not json_of(record)["scores"]["steps"][0]["content"]
    assert "Kept in FP32: layer.1/output." in capsys.readouterr().out
    # INT8 everywhere is not enough, and one step allows no other set.
    assert search.main([*SEARCHED, *folders, "search.steps=1"]) == 1
    assert (
        "The search has no result yet. Ended after 1 step; a larger set of parts may be enough."
        in capsys.readouterr().out
    )
    # The first step is reused. With two steps the answer is all parts, with a note that fewer may be enough.
    assert search.main([*SEARCHED, *folders, "search.steps=2"]) == 0
    (record,) = read_records(tmp_path / "results", "search")
    assert json_of(record)["scores"]["held"] == json_of(record)["scores"]["parts"]
    assert "ended after 2 steps" in record.reason
    assert "Kept in FP32: all. Ended after 2 steps; a smaller set of parts may be enough." in capsys.readouterr().out
    # The parts in leave_out are kept in higher precision in every step.
    given = "quantization.leave_out=['*/layer.1/output/*']"
    assert search.main([*SEARCHED, *folders, given]) == 0
    assert "Kept in FP32: none." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["backend=ort", "precision=fp32"], "precision=fp32 has no higher precision for parts"),
        (["backend=no", "precision=int8"], "backend"),
        (
            ["backend=ort", "precision=fp16", "device=cpu"],
            "cannot keep parts of fp16 in higher precision (keep_fp32)",
        ),
        (["backend=torch_compile", "precision=fp16"], "use torch_eager, trt"),
        (["backend=trt_plugin", "precision=fp16"], "backend=trt_plugin cannot keep parts of fp16 in higher precision"),
        (
            ["backend=ort", "precision=int8", "quantization.scheme=implicit"],
            "use quantization.scheme=explicit",
        ),
        (["backend=ort", "precision=int8", "device=cpu", "search.steps=-1"], "search.steps=-1 must be at least 0"),
        (
            ["backend=ort", "precision=int8", "device=cpu", "search.seconds=-1"],
            "search.seconds=-1.0 must be at least 0",
        ),
        (["backend=ort", "precision=int8", "device=cpu", "search.cosine=1.5"], "search.cosine=1.5 must be between"),
        (["backend=ort", "precision=int8", "device=cpu", "until=build"], "until=build measures nothing"),
        (["-m", "backend=ort", "precision=int8"], "there is no option -m"),
        (["backend=ort", "precision=int8", "device=cpu", "+foo=1"], "there is no key foo"),
        (["backend=ort", "precision=int8", "device=cpu", "+search.step=1"], "did you mean search.steps?"),
        (["backend=ort", "precision=int8", "device=cpu", "batch=[[1]]"], "batch=[[1]] must be a list of whole numbers"),
        (["backend=ort", "precision=int8", "device=cpu", "suite=null"], "suite=null names no choice"),
        (["backend=ort", "precision=int8", "device=cpu", "search.seconds=nan"], "search.seconds=nan must be a finite"),
        (["backend=ort", "precision=int8", "device=cpu", "hydra/launcher=x"], "cannot be set here"),
    ],
)
def test_a_cell_that_cannot_be_searched_is_refused(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [f"results={tmp_path / 'results'}", f"cache={tmp_path / 'cache'}"]
    assert search.main([*arguments, "weights=random", *folders]) == 2
    refused = capsys.readouterr().err.splitlines()[-1]
    assert refused.startswith("refused: ")
    assert says in refused


def test_a_guide_explains_it() -> None:
    assert "python -m suites.search" in (ROOT / "docs" / "guides" / "precision_search.md").read_text()
