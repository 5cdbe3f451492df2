"""On a GPU only: the harness against a bare loop of the framework's own events."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest

from backends.base import BuildSpec, Feeds, Session, Shape, Source, load_backend
from suites import clock
from suites.clock import Effort
from suites.machine import gpus

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus(), reason="no NVIDIA GPU is visible")]
SHAPE = Shape(128, 128)
"""Large enough that the GPU, not the launching host, sets the pace of eager steps."""
EFFORT = Effort(warm_up_s=2, seconds=1, min_samples=50, max_samples=1000, tolerance=0.01)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, Feeds]:
    from backends.cache import ArtifactCache
    from backends.checkpoint import locate

    cache = tmp_path_factory.mktemp("cache")
    architecture = {"model_type": "bert", "num_hidden_layers": 12}
    folder, sha256 = locate({"weights": "random", "seed": 0, "architecture": architecture}, ArtifactCache(cache))
    backend = load_backend("torch_eager")
    options = {"threads": 0}
    spec = BuildSpec("fp16", gpus()[0].device, (SHAPE,), cuda_graph=True, cache=Path(cache), options=options)
    session = backend.open(spec, backend.build(spec, Source(folder, sha256)))
    ids = np.random.default_rng(0).integers(1000, 20000, (SHAPE.batch, SHAPE.sequence), dtype=np.int32)
    ones = np.ones_like(ids)
    return session, {"input_ids": ids, "attention_mask": ones, "token_type_ids": ones * 0}


@pytest.mark.parametrize("graph", [False, True])
def test_gpu_time_agrees_with_a_bare_event_loop(opened: tuple[Session, Feeds], graph: bool) -> None:
    import torch

    session, feeds = opened
    session.load(feeds)
    clock.warm_up(session, EFFORT)
    if graph:
        session.capture()

    def bare() -> float:
        pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(200)]
        for before, after in pairs:
            before.record()
            session.step()
            after.record()
        torch.cuda.synchronize()
        return statistics.median(before.elapsed_time(after) for before, after in pairs) * 1e6

    ours, theirs = [], []
    for _ in range(5):
        ours.append(statistics.median(clock.time_device(session, EFFORT).values))
        theirs.append(bare())
    assert statistics.median(ours) == pytest.approx(statistics.median(theirs), rel=0.02)


def test_replaying_the_graph_gives_the_plain_output(opened: tuple[Session, Feeds]) -> None:
    session, feeds = opened
    session.load({name: array[:8, :64].copy() for name, array in feeds.items()})
    session.step()
    plain = session.fetch().copy()
    session.capture()
    session.step()
    assert np.abs(session.fetch() - plain).max() < 0.02  # FP16; under capture cuBLAS may choose other kernels
