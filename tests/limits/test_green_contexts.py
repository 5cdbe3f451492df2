"""Calls of the driver API that divide a GPU, checked against its rules by a simulated driver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from backends.base import BuildSpec, Device, Shape, Unavailable, Unsupported
from backends.compute_share import ComputeShare, current_share, limited_to
from backends.ort_.description import OrtOptions
from backends.ort_.ort import OnnxRuntime

pytest.importorskip("cuda.bindings.driver")

from cuda.bindings import driver as real
from cuda.bindings import runtime

from backends import cuda, green_contexts
from suites.measuring.machine import gpus

OK, TOO_FEW = real.CUresult.CUDA_SUCCESS, real.CUresult.CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION
SMS = 132


class Driver:
    """Simulated driver of a GPU whose SMs come in groups of `granularity`. It refuses arguments of wrong types."""

    CUresult, CUdevResourceType = real.CUresult, real.CUdevResourceType
    CUgreenCtxCreate_flags, CUstream_flags = real.CUgreenCtxCreate_flags, real.CUstream_flags

    def __init__(self, granularity: int = 8) -> None:
        self.granularity = granularity
        self.initialized = False
        self.splits: list[tuple[int, int]] = []
        self.stack: list[int] = []
        self.streams: list[object] = []

    def cuInit(self, flags: int) -> tuple[object]:
        assert flags == 0
        self.initialized = True
        return (OK,)

    def cuDeviceGet(self, ordinal: int) -> tuple[object, object]:
        assert self.initialized
        return OK, f"device {ordinal}"

    def cuDeviceGetDevResource(self, device: object, kind: object) -> tuple[object, object]:
        assert (device, kind) == ("device 1", real.CUdevResourceType.CU_DEV_RESOURCE_TYPE_SM)
        return OK, self._resource(SMS)

    def cuDevSmResourceSplitByCount(
        self, groups: int, whole: SimpleNamespace, flags: int, fewest: int
    ) -> tuple[object, list[SimpleNamespace], int, SimpleNamespace]:
        assert (flags, whole.sm.smCount, 0 < fewest <= SMS) == (0, SMS, True)
        self.splits.append((groups, fewest))
        size = -(-fewest // self.granularity) * self.granularity
        if size > SMS:
            return TOO_FEW, [], 0, self._resource(0)
        created = min(groups, SMS // size)
        rows = [self._resource(size if row < created else 0) for row in range(groups)]
        return OK, rows, created, self._resource(SMS - created * size)

    def cuDevResourceGenerateDesc(self, resources: list[SimpleNamespace], count: int) -> tuple[object, object]:
        assert len(resources) == count == 1
        return OK, ("description", resources[0].sm.smCount)

    def cuGreenCtxCreate(self, description: object, device: object, flags: object) -> tuple[object, object]:
        assert (device, flags) == ("device 1", real.CUgreenCtxCreate_flags.CU_GREEN_CTX_DEFAULT_STREAM)
        return OK, ("green", description)

    def cuGreenCtxStreamCreate(self, context: object, flags: object, priority: int) -> tuple[object, object]:
        assert (flags, priority) == (real.CUstream_flags.CU_STREAM_NON_BLOCKING, 0)
        self.streams.append(context)
        return OK, 77

    def cuCtxFromGreenCtx(self, context: object) -> tuple[object, int]:
        return OK, hash(context)

    def cuCtxPushCurrent(self, handle: int) -> tuple[object]:
        self.stack.append(handle)
        return (OK,)

    def cuCtxPopCurrent(self) -> tuple[object, int]:
        return OK, self.stack.pop()

    @staticmethod
    def _resource(count: int) -> SimpleNamespace:
        return SimpleNamespace(sm=SimpleNamespace(smCount=count))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    simulated = Driver()
    monkeypatch.setattr(green_contexts, "driver", simulated)
    return simulated


@pytest.mark.parametrize(
    ("share", "units"), [(0.01, 8), (0.1, 16), (0.25, 40), (0.5, 72), (0.99, 132), (1.0, 132)], ids=str
)
def test_one_part_has_at_least_its_share_in_groups_of_the_device(driver: Driver, share: float, units: int) -> None:
    (part,) = green_contexts.divide(1, (share,))
    assert (part.units, part.total) == (units, SMS)
    assert part.context == ("green", ("description", units))


def test_a_product_that_is_whole_is_not_rounded_up(driver: Driver) -> None:
    # 0.07 * 100 is slightly above 7 in floating point
    assert len(green_contexts._groups(driver._resource(SMS), 100, (0.07,))) == 1
    assert driver.splits == [(1, 7)]


def test_two_halves_are_rounded_down_to_groups_of_the_device(driver: Driver) -> None:
    assert [part.units for part in green_contexts.divide(1, (0.5, 0.5))] == [64, 64]
    assert driver.splits == [(2, 66), (2, 65), (2, 64)]


@pytest.mark.parametrize(("share", "units"), [(0.25, [40, 92]), (0.75, [104, 28])], ids=str)
def test_the_second_part_has_all_sms_that_the_first_one_does_not_have(
    driver: Driver, share: float, units: list[int]
) -> None:
    parts = green_contexts.divide(1, (share, 1 - share))
    assert [part.units for part in parts] == units
    assert sum(units) == SMS


@pytest.mark.parametrize(("granularity", "size"), [(SMS, 33), (8, 131)], ids=str)
def test_a_part_that_leaves_no_sms_is_unavailable(driver: Driver, granularity: int, size: int) -> None:
    driver.granularity = granularity
    with pytest.raises(Unavailable, match=f"a group of {size} SMs leaves no other SMs of this device"):
        green_contexts.divide(1, (size / SMS, 1 - size / SMS))


def test_a_green_context_is_current_in_its_context_alone(driver: Driver) -> None:
    with green_contexts.made_current("green"):
        assert driver.stack == [hash("green")]
    assert driver.stack == []


def test_a_library_that_leaves_the_green_context_is_unavailable(driver: Driver) -> None:
    with pytest.raises(Unavailable, match="the library left the green context"), green_contexts.made_current("green"):
        driver.stack[-1] = hash("primary")


def test_an_error_in_a_green_context_is_not_hidden(driver: Driver) -> None:
    def fail() -> None:
        driver.stack[-1] = hash("primary")
        raise ValueError("of the library")

    with pytest.raises(ValueError, match="of the library"), green_contexts.made_current("green"):
        fail()


def test_a_driver_that_makes_no_green_context_current_is_unavailable(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Driver, "cuCtxFromGreenCtx")
    with pytest.raises(Unavailable, match=r"contexts need .*cuCtxFromGreenCtx"), green_contexts.made_current("c"):
        pytest.fail("the work started")


def test_a_device_of_one_group_has_no_halves(driver: Driver) -> None:
    driver.granularity = SMS
    with pytest.raises(Unavailable, match="the 132 SMs of this device cannot be divided into 2 groups"):
        green_contexts.divide(1, (0.5, 0.5))


@pytest.mark.parametrize(
    ("failing", "reason"),
    [
        (lambda *arguments: (real.CUresult.CUDA_ERROR_NOT_SUPPORTED, None), "the driver reported CUDA_ERROR_NOT_SUPP"),
        (None, "cuGreenCtxCreate"),
    ],
    ids=["not supported", "missing function"],
)
def test_a_driver_without_green_contexts_is_unavailable(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, failing: Callable[..., object] | None, reason: str
) -> None:
    if failing is None:
        monkeypatch.delattr(Driver, "cuGreenCtxCreate")
    else:
        monkeypatch.setattr(driver, "cuGreenCtxCreate", failing)
    with pytest.raises(Unavailable, match=f"green contexts need an NVIDIA driver and .* 12.4 or newer: .*{reason}"):
        green_contexts.divide(1, (0.5,))


def test_an_unexpected_error_of_a_split_is_named(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: tuple[object, ...] = (real.CUresult.CUDA_ERROR_INVALID_VALUE, [], 0, None)
    monkeypatch.setattr(driver, "cuDevSmResourceSplitByCount", lambda *arguments: failed)
    with pytest.raises(Unavailable, match="the driver reported CUDA_ERROR_INVALID_VALUE"):
        green_contexts.divide(1, (0.5, 0.5))


def test_a_stream_is_created_in_the_share_of_its_thread(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    created: list[int] = []

    def plain(flags: int) -> tuple[object, int]:
        created.append(flags)
        return runtime.cudaError_t.cudaSuccess, 5

    monkeypatch.setattr(cuda, "use_device", lambda index: None)
    monkeypatch.setattr(runtime, "cudaStreamCreateWithFlags", plain)
    with limited_to(ComputeShare(8, SMS, "context")):
        assert cuda.CudaStream(0).handle == 77
        with limited_to(None):
            assert cuda.CudaStream(0).handle == 5
    assert cuda.CudaStream(0).handle == 5
    assert (driver.streams, len(created)) == (["context"], 2)
    assert current_share() is None


def test_a_backend_divides_a_gpu_and_no_cpu(driver: Driver, tmp_path: Path) -> None:
    spec = BuildSpec("fp32", Device("cuda", 1), (Shape(1, 16),), True, tmp_path, OrtOptions())
    backend = OnnxRuntime()
    assert [part.units for part in backend.divide(spec, (0.25,))] == [40]
    with pytest.raises(Unsupported, match="only the SMs of an NVIDIA GPU can be divided; choose device=cuda"):
        backend.divide(BuildSpec("fp32", Device(), (Shape(1, 16),), False, tmp_path, OrtOptions()), (0.25,))


@pytest.mark.skipif(bool(gpus()), reason="an NVIDIA driver is installed")
def test_a_machine_without_a_driver_is_unavailable() -> None:
    """The functions of cuda-python itself convert the arguments, and then find no driver."""
    with pytest.raises(Unavailable, match=r"green contexts need an NVIDIA driver .*cuda"):
        green_contexts.divide(0, (0.5,))
    whole = real.CUdevResource()
    for call in (
        lambda: green_contexts._groups(whole, SMS, (0.5, 0.5)),
        lambda: green_contexts._context(real.CUdevice(0), whole),
        lambda: green_contexts.stream_of(real.CUgreenCtx()),
    ):
        with pytest.raises(RuntimeError, match="driver"):
            call()


def test_the_runtime_accepts_a_stream_of_the_driver() -> None:
    (error,) = runtime.cudaStreamSynchronize(real.CUstream(0))
    assert isinstance(error, runtime.cudaError_t)
