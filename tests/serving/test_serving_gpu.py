"""suite=serving on a GPU: graphs of all workers, one engine for several streams, and figures of the GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import TINY_MODELS, Cli

from suites.measuring.machine import gpus
from suites.records.results_folder import read_records
from suites.serving.result import ServingResult

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus(), reason="no NVIDIA GPU is visible")]

ARCHITECTURE = ", ".join(f"{name}: {value}" for name, value in TINY_MODELS["bert"].items())
WORDS = ("suite=serving", "precision=fp16", "device=cuda", "weights=random", f"model.architecture={{{ARCHITECTURE}}}",
         "output=embedding", "pooling=[mean]", "batch=[1,4]", "sequence=[32]", "lengths=uniform", "suite.seconds=1",
         "suite.warm_up_s=0.5", "serving.pad_to=built", "serving.loads=[200]")  # fmt: skip


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("torch_eager", ()),
        ("torch_packed", ("pad_to_multiple_of=16",)),
        ("ort", ()),
        ("trt", ("trt.contexts=per_profile",)),
        ("trt", ("trt.contexts=per_profile", "trt.share_engine=true")),
        ("trt_plugin", ("trt.contexts=per_profile", "pad_to_multiple_of=16")),
    ],
    ids=str,
)
@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_all_workers_replay_graphs(backend: str, words: tuple[str, ...], pool: str, cli: Cli, tmp_path: Path) -> None:
    cli(*WORDS, f"backend={backend}", *words, "serving.graph=true", "serving.workers=2", f"serving.pool={pool}")
    (record,) = read_records(tmp_path / "results", "serving")
    if record.outcome == "unavailable":
        pytest.skip(record.reason)
    assert record.outcome == "ok", record.reason
    assert [check.cuda_graph for check in record.checks] == [False, True]
    assert min(check.cosine or 0.0 for check in record.checks) >= 0.9999
    result = record.result
    assert isinstance(result, ServingResult)
    for point in result.points:
        assert (point.errors, point.answered) == (0, point.sent)
        assert point.replayed == sum(point.batches.values())
        assert point.energy_mj is None or point.energy_mj > 0
        assert point.gpu_busy is None or 0 <= point.gpu_busy <= 1
