"""Checks of CPU, memory and GPUs."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from backends.finding import MISSING, OK, WARNING, Finding
from backends.json_codec import from_json
from suites.measuring.machine import Machine, cpu, gpus
from suites.schema.refusals import first_line

LEAST_MEMORY = 4 << 30
"""Bytes of free memory below which the export of a BERT-base may fail: it keeps several copies of the weights."""


def hardware() -> tuple[list[Finding], list[Machine]]:
    """Return the findings about the hardware, and the GPUs that cells can use."""
    findings = [_cpu(), _memory()]
    try:
        found = gpus()
    except ModuleNotFoundError:
        fix = f"{sys.executable} -m pip install nvidia-ml-py"
        return [*findings, Finding("GPU", MISSING, "unknown: nvidia-ml-py (NVML) is not installed", fix)], []
    except Exception as error:  # NVML raises its own errors, e.g. after an update of the driver without a restart
        return [*findings, Finding("GPU", WARNING, f"NVML failed: {first_line(error)}", "nvidia-smi")], []
    if not found:
        text = "no NVIDIA GPU or driver is visible; backends that need one cannot run"
        return [*findings, Finding("GPU", WARNING, text, "nvidia-smi")], []
    return [*findings, *map(_gpu, found)], found


def _cpu() -> Finding:
    try:
        facts = cpu().description
        quota = f", limited to {facts['cpu_quota']:g} by the cgroup" if "cpu_quota" in facts else ""
        return Finding("CPU", OK, f"{facts['cpu']}, {facts['cores']} cores{quota}, {facts['architecture']}")
    except Exception as error:
        return Finding("CPU", WARNING, f"unknown: {first_line(error)}")


def _memory(path: Path = Path("/proc/meminfo"), limit: Path = Path("/sys/fs/cgroup/memory.max")) -> Finding:
    try:
        facts = {name: int(size) << 10 for name, size in _sizes(path.read_text(encoding="utf-8"))}
        total, free = facts["MemTotal"], facts["MemAvailable"]
    except (OSError, ValueError, KeyError):
        return Finding("memory", WARNING, "unknown: /proc/meminfo cannot be read")
    with contextlib.suppress(OSError, ValueError):  # no cgroup, or "max"
        total = min(total, int(limit.read_text(encoding="ascii")))
    free = min(free, total)
    text = f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB free"
    if free < LEAST_MEMORY:
        return Finding("memory", WARNING, f"{text}; large models may not fit", "ps aux --sort=-rss | head")
    return Finding("memory", OK, text)


def _sizes(text: str) -> Iterator[tuple[str, str]]:
    yield from re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)


def _gpu(machine: Machine) -> Finding:
    facts, (major, minor) = machine.description, machine.device.compute_capability
    size = from_json(float, facts.get("memory_bytes", 0), "memory_bytes")
    memory = f"{size / 1e9:.0f} GB, " if "memory_bytes" in facts else ""
    driver = f"driver {facts.get('driver', '?')}, CUDA {facts.get('cuda_driver', '?')}"
    return Finding("GPU", OK, f"{facts['gpu']}, {memory}{driver}, compute capability {major}.{minor}")
