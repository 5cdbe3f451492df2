"""Values read from NVML. A fake NVML has two GPUs, and one of them reports little."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import wait_until

from suites.measuring import machine
from suites.running.telemetry import TelemetrySampler


class NVMLError(Exception):
    pass


class FakeNvml(SimpleNamespace):
    """Handles are indices; GPU 1 supports neither the energy counter nor power limits."""

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self, count: int = 2) -> None:
        super().__init__(count=count, energy=0, opened=0)

    def nvmlInit(self) -> None:
        if not self.count:
            raise NVMLError("driver not loaded")
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        if handle == 1:
            raise NVMLError("not supported")
        self.energy += 1000
        return self.energy

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:
        if handle == 1:
            raise NVMLError("not supported")
        return 700_000

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[SimpleNamespace]:
        if handle == 1:
            raise NVMLError("not supported")
        return [SimpleNamespace(pid=7), SimpleNamespace(pid=8)]

    def __getattr__(self, name: str) -> Any:
        answers = {
            "nvmlSystemGetDriverVersion": lambda: "580.1",
            "nvmlSystemGetCudaDriverVersion": lambda: 13010,
            "nvmlDeviceGetCount": lambda: self.count,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetHandleByUUID": lambda uuid: int(uuid[-1]),
            "nvmlDeviceGetName": lambda handle: "NVIDIA H200",
            "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}",
            "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=8_000, used=1_000),
            "nvmlDeviceGetMaxClockInfo": lambda handle, clock: 1980,
            "nvmlDeviceGetCudaComputeCapability": lambda handle: (9, 0),
            "nvmlDeviceGetClockInfo": lambda handle, clock: 1000 * clock,
            "nvmlDeviceGetPowerUsage": lambda handle: 350_000,
            "nvmlDeviceGetTemperature": lambda handle, sensor: 41,
            "nvmlDeviceGetCurrentClocksEventReasons": lambda handle: 4,
            "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=73, memory=12),
        }
        return answers[name]


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


def test_gpus_are_identified_by_product_and_driver(nvml: FakeNvml) -> None:
    first, second = machine.gpus()
    assert first.slug == second.slug == "nvidia-h200-driver-580.1"
    assert (first.device.kind, first.device.uuid, first.device.compute_capability) == ("cuda", "GPU-0", (9, 0))
    assert second.device.index == 0  # the worker sees only this GPU
    assert (first.description["cuda_driver"], first.description["power_limit_w"]) == ("13.1", 700)
    assert second.description["power_limit_w"] == 0
    assert nvml.opened == 0


@pytest.mark.parametrize(("visible", "found"), [("1", ["GPU-1"]), ("GPU-0", ["GPU-0"]), ("", []), ("-1", [])])
def test_only_visible_gpus_are_listed(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, visible: str, found: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.device.uuid for gpu in machine.gpus()] == found


def test_without_a_driver_no_gpu_is_listed(nvml: FakeNvml) -> None:
    nvml.count = 0
    assert machine.gpus() == []


@pytest.mark.parametrize(("uuid", "answers_all"), [("GPU-0", True), ("GPU-1", False)])
def test_telemetry_samples_until_the_block_ends(nvml: FakeNvml, uuid: str, answers_all: bool) -> None:
    others = set(threading.enumerate())
    with TelemetrySampler(uuid, period_s=0.005) as telemetry:
        wait_until(lambda: len(telemetry.readings) >= 5)
    assert set(threading.enumerate()) <= others
    last = telemetry.readings[-1]
    assert (last.sm_clock, last.memory_clock, last.power, last.temperature, last.reasons) == (1000, 2000, 350, 41, 4)
    assert last.busy == 73
    assert bool(last.energy) is answers_all
    assert last.processes == (2 if answers_all else 0)
    assert nvml.opened == 0


def test_a_cpu_is_identified_by_model_and_cores() -> None:
    here = machine.cpu()
    assert here.slug.startswith("cpu-")
    assert here.slug.endswith("-cores")
    assert here.description["uuid"].startswith("HOST-")
    assert machine.cpu() == here
