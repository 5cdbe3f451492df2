"""GPU tests of limits: a stream has the SMs of its green context, and fewer SMs make a large step slower."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Cli

from backends.base import BuildSpec, Shape, Source
from backends.cache import ArtifactCache
from backends.compute_share import limited_to
from backends.model.checkpoint import find_checkpoint
from backends.model.reference import ModelReference
from backends.registry import load_backend
from backends.torch_.description import EagerOptions
from suites.limits.result import ALONE, PROCESSES, SLICES, THREADS, LimitsResult
from suites.measuring import clock
from suites.measuring.clock import Effort
from suites.measuring.machine import gpus
from suites.records.results_folder import read_records

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus(), reason="no NVIDIA GPU is visible")]
EFFORT = Effort(warm_up_s=1, seconds=0.5, min_samples=20, max_samples=200, tolerance=0.02)
LARGE = Shape(64, 128)


def test_a_stream_of_a_green_context_has_its_sms() -> None:
    from cuda.bindings import driver

    from backends import green_contexts
    from backends.cuda import CudaStream

    (part,) = green_contexts.divide(0, (0.25,))
    assert 0.25 * part.total <= part.units < part.total
    with limited_to(part):
        stream = CudaStream(0)
    context = green_contexts._checked(driver.cuStreamGetGreenCtx(stream.handle))
    kind = driver.CUdevResourceType.CU_DEV_RESOURCE_TYPE_SM
    assert green_contexts._checked(driver.cuGreenCtxGetDevResource(context, kind)).sm.smCount == part.units
    before, after = stream.event(), stream.event()
    before.record()
    stream.occupy(100_000)
    after.record()
    stream.synchronize()
    assert after.nanoseconds_since(before) > 0


def test_two_halves_have_no_more_sms_than_the_device() -> None:
    from backends import green_contexts

    first, second = green_contexts.divide(0, (0.5, 0.5))
    assert first.units == second.units > 0
    assert first.units + second.units <= first.total


def test_a_quarter_and_the_rest_have_all_sms() -> None:
    from backends import green_contexts

    first, second = green_contexts.divide(0, (0.25, 0.75))
    assert first.units >= 0.25 * first.total
    assert first.units + second.units == first.total


def test_a_stream_that_a_library_creates_in_a_green_context_has_its_sms() -> None:
    from cuda.bindings import driver, runtime

    from backends import green_contexts
    from backends.cuda import checked, use_device

    use_device(0)
    (part,) = green_contexts.divide(0, (0.25,))
    with green_contexts.made_current(part.context):
        stream = checked(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))
    context = green_contexts._checked(driver.cuStreamGetGreenCtx(stream))
    kind = driver.CUdevResourceType.CU_DEV_RESOURCE_TYPE_SM
    assert green_contexts._checked(driver.cuGreenCtxGetDevResource(context, kind)).sm.smCount == part.units


def test_two_processes_share_a_gpu(cli: Cli, tmp_path: Path) -> None:
    """With or without permission for MPS, time slices and green contexts have times."""
    done = cli("suite=limits", "backend=torch_eager", "precision=fp16", "weights=random", "model=minilm",
               "batch=[1,32]", "sequence=[128]", "limits.shares=[1]", "limits.processes=true",
               "limits.load_s=1")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "limits")
    assert isinstance(record.result, LimitsResult)
    measured = {times.sharing for times in record.result.loads if times.latency and times.steps}
    assert {ALONE, SLICES, THREADS} <= measured
    assert PROCESSES in {times.sharing for times in record.result.loads}


@pytest.mark.parametrize("graph", [False, True])
def test_a_large_step_of_pytorch_is_slower_on_a_quarter_of_the_sms(tmp_path: Path, graph: bool) -> None:
    architecture = {"model_type": "bert", "num_hidden_layers": 4}
    checkpoint = find_checkpoint(ModelReference("random", architecture=architecture), ArtifactCache(tmp_path))
    backend = load_backend("torch_eager")
    spec = BuildSpec("fp16", gpus()[0].device, (LARGE,), cuda_graph=True, cache=tmp_path, options=EagerOptions())
    artifact = backend.build(spec, Source(checkpoint.folder, checkpoint.weights_sha256))
    ids = np.random.default_rng(0).integers(1000, 20000, (LARGE.batch, LARGE.sequence), dtype=np.int32)
    ones = np.ones_like(ids)
    outputs, times = [], []
    for share in (1.0, 0.25):
        (part,) = backend.divide(spec, (share,))
        with limited_to(part), backend.open(spec, artifact) as session:
            session.load({"input_ids": ids, "attention_mask": ones, "token_type_ids": ones * 0})
            session.step()
            if graph:
                session.capture()
            clock.warm_up(session, EFFORT)
            times.append(np.median(clock.time_device(session, EFFORT).values))
            outputs.append(session.fetch().astype(np.float32))
    assert times[1] > 2 * times[0]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=0.05)
