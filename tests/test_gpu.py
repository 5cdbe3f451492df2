"""GPU tests: times of the suite compared with a plain loop of PyTorch events, and properties of sessions."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest

from backends.base import BuildSpec, Feeds, Session, Shape, Source
from backends.registry import load_backend
from backends.torch_.description import EagerOptions
from suites.measuring import clock
from suites.measuring.clock import Effort
from suites.measuring.machine import gpus
from suites.measuring.request_clock import time_on_device

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus(), reason="no NVIDIA GPU is visible")]
SHAPE = Shape(128, 128)
"""Large enough that the GPU, and not the launching host, limits the speed of eager steps."""
EFFORT = Effort(warm_up_s=2, seconds=1, min_samples=50, max_samples=1000, tolerance=0.01)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, Feeds]:
    from backends.cache import ArtifactCache
    from backends.model.checkpoint import find_checkpoint
    from backends.model.reference import ModelReference

    cache = tmp_path_factory.mktemp("cache")
    architecture = {"model_type": "bert", "num_hidden_layers": 12}
    checkpoint = find_checkpoint(ModelReference("random", architecture=architecture), ArtifactCache(cache))
    backend = load_backend("torch_eager")
    spec = BuildSpec("fp16", gpus()[0].device, (SHAPE,), cuda_graph=True, cache=Path(cache), options=EagerOptions())
    session = backend.open(spec, backend.build(spec, Source(checkpoint.folder, checkpoint.weights_sha256)))
    ids = np.random.default_rng(0).integers(1000, 20000, (SHAPE.batch, SHAPE.sequence), dtype=np.int32)
    ones = np.ones_like(ids)
    return session, {"input_ids": ids, "attention_mask": ones, "token_type_ids": ones * 0}


@pytest.mark.parametrize("graph", [False, True])
def test_gpu_time_agrees_with_a_plain_event_loop(opened: tuple[Session, Feeds], graph: bool) -> None:
    import torch

    session, feeds = opened
    session.load(feeds)
    clock.warm_up(session, EFFORT)
    if graph:
        session.capture()

    assert session.stream is not None
    stream = torch.cuda.ExternalStream(int(session.stream.handle))  # type: ignore[attr-defined]

    def plain_loop() -> float:
        pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(200)]
        for before, after in pairs:
            before.record(stream)
            session.step()
            after.record(stream)
        torch.cuda.synchronize()
        return statistics.median(before.elapsed_time(after) for before, after in pairs) * 1e6

    suite_times, loop_times = [], []
    for _ in range(5):
        suite_times.append(statistics.median(clock.time_device(session, EFFORT).values))
        loop_times.append(plain_loop())
    assert statistics.median(suite_times) == pytest.approx(statistics.median(loop_times), rel=0.02)


def test_replaying_the_graph_gives_the_plain_output(opened: tuple[Session, Feeds]) -> None:
    session, feeds = opened
    session.load({name: array[:8, :64].copy() for name, array in feeds.items()})
    session.step()
    plain = session.fetch().copy()
    session.capture()
    session.step()
    assert np.abs(session.fetch() - plain).max() < 0.02  # FP16; under capture cuBLAS may choose other kernels


def test_an_occupied_device_is_busy_for_about_the_requested_time(opened: tuple[Session, Feeds]) -> None:
    session, _ = opened
    stream = session.stream
    assert stream is not None
    stream.occupy(1)
    stream.synchronize()
    before, after = stream.event(), stream.event()
    before.record()
    stream.occupy(20_000_000)
    after.record()
    assert not after.reached()
    stream.synchronize()
    assert after.reached()
    assert 10_000_000 < after.nanoseconds_since(before) < 40_000_000


def test_the_first_step_on_a_busy_device_takes_no_longer_than_the_second(opened: tuple[Session, Feeds]) -> None:
    """At 1 x 32 an eager step takes much more time on the host than on the device. The result must not include it."""
    session, feeds = opened
    small, other = ({name: array[:1, :size].copy() for name, array in feeds.items()} for size in (32, 64))
    for batch in (small, other) * 3:
        session.load(batch)
        session.step()
        session.wait()
    results = [time_on_device(session, other, small, 40_000_000) for _ in range(10)]
    times = [result for result in results if result is not None]
    assert len(times) > 5
    first, second = (statistics.median(steps[index] for steps in times) for index in (0, 1))
    assert first == pytest.approx(second, rel=0.2)
    assert second < 2_000_000
