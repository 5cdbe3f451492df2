"""`--plan` refuses a model with the outcome and the reason of a run, before anything is exported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Cli
from word_models import word_model

from suites.planning import past_runs
from suites.records.results_folder import read_records

QUICK = ("device=cpu", "batch=[1]", "sequence=[8]")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Use no committed records."""
    monkeypatch.setattr(past_runs, "REFERENCE", tmp_path / "none")


def changed(folder: Path, copy: Path, **settings: object) -> Path:
    """Return a copy of a checkpoint with other settings in its config.json."""
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **settings}))
    return copy


@pytest.fixture(scope="module")
def with_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a classifier with three labels."""
    return word_model(tmp_path_factory.mktemp("head"), head="classification", num_labels=3)


@pytest.fixture(scope="module")
def without_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return word_model(tmp_path_factory.mktemp("encoder"))


@pytest.mark.parametrize(
    ("make", "words", "reason"),
    [
        (lambda plain, head, copy: plain, ("backend=torch_eager", "output=logits"), "no classification head: it lacks"),
        (lambda plain, head, copy: plain, ("backend=ort", "output=spans"), "no question answering head"),
        (
            lambda plain, head, copy: changed(head, copy, id2label={str(place): f"l{place}" for place in range(4)}),
            ("backend=torch_eager", "output=logits"),
            "the checkpoint's head has 3 outputs, but config.json has 4 labels",
        ),
        (lambda plain, head, copy: head, ("backend=ort", "output=score"), "output=score needs a head with one output"),
        (
            lambda plain, head, copy: plain,
            ("backend=torch_packed", "suite=layers"),
            "backend=torch_packed returns only the last output",
        ),
        (
            lambda plain, head, copy: changed(plain, copy, is_decoder=True),
            ("backend=torch_eager",),
            "causal attention is not supported",
        ),
    ],
    ids=["no-head", "no-spans", "labels", "score", "marked", "decoder"],
)
def test_a_plan_gives_the_refusal_of_a_run(
    make: Callable[[Path, Path, Path], Path],
    words: tuple[str, ...],
    reason: str,
    without_head: Path,
    with_head: Path,
    fast_cli: Cli,
    tmp_path: Path,
) -> None:
    folder = make(without_head, with_head, tmp_path / "copy")
    arguments = (f"model.path={folder}", *words, *QUICK)
    plan = fast_cli("--plan", *arguments)
    assert (plan.returncode, plan.stderr) == (0, "")
    assert "cells       1: 1 unsupported" in plan.stdout
    assert fast_cli(*arguments).returncode == 0
    (record,) = read_records(tmp_path / "results", "layers" if "suite=layers" in words else "latency")
    assert record.outcome == "unsupported"
    assert reason in record.reason
    assert record.reason in " ".join(plan.stdout.split())
    assert not record.artifacts.digests()


def test_a_model_that_can_run_is_planned(with_head: Path, fast_cli: Cli) -> None:
    for output in ("logits", "embedding", "hidden", "auto"):
        plan = fast_cli("--plan", f"model.path={with_head}", "backend=ort", f"output={output}", *QUICK)
        assert "cells       1: 1 to run" in plan.stdout


def test_random_weights_are_checked_by_their_settings(fast_cli: Cli) -> None:
    plan = fast_cli("--plan", "-m", "model=modernbert_base", "weights=random", "backend=torch_packed,ort", *QUICK)
    assert "cells       2: 1 to run, 1 unsupported" in plan.stdout
    assert "attention rotates queries and keys" in " ".join(plan.stdout.split())
