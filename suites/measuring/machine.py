"""Describe this machine: its GPUs from NVML, its CPU from /proc. Imports no framework."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from backends.base import Device
from backends.options import NamedGpu

T = TypeVar("T")

CPU_FEATURES = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm", "bf16",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """Device to measure on, with its identity.

    Attributes:
        slug: name of the folder of its records. It has the GPU's product name and driver, or the CPU's model and number
            of cores. A table never mixes records of different slugs.
        description: facts for the record. Its `uuid` distinguishes devices that have the same slug.
    """

    device: Device
    slug: str
    description: Mapping[str, object] = field(default_factory=dict)


def nvml_query(query: Callable[..., T], *arguments: object) -> T | int:
    """Return the result of an NVML query, or 0 if this GPU does not support it (for example energy or power limit)."""
    import pynvml

    try:
        return query(*arguments)
    except pynvml.NVMLError:
        return 0


def gpus() -> list[Machine]:
    """Return the NVIDIA GPUs of this machine that CUDA_VISIBLE_DEVICES allows; empty without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
        cuda = pynvml.nvmlSystemGetCudaDriverVersion()
        found = (_gpu(index, driver, cuda) for index in range(pynvml.nvmlDeviceGetCount()))
        return [machine for machine in found if machine is not None]
    finally:
        pynvml.nvmlShutdown()


def _gpu(index: int, driver: str, cuda: int) -> Machine | None:
    """Return one GPU; None if CUDA_VISIBLE_DEVICES hides it or the driver has lost it."""
    import pynvml

    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        name, uuid = pynvml.nvmlDeviceGetName(handle), pynvml.nvmlDeviceGetUUID(handle)
        if not _visible(index, uuid):
            return None
        memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
        capability = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    except (pynvml.NVMLError_GpuIsLost, pynvml.NVMLError_NotFound):
        return None
    description = {
        "gpu": name,
        "uuid": uuid,
        "driver": driver,
        "cuda_driver": f"{cuda // 1000}.{cuda % 1000 // 10}",
        "memory_bytes": memory,
        "max_sm_clock_mhz": nvml_query(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM),
        "power_limit_w": nvml_query(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle) / 1000,
        **_host(),
    }
    # The worker sees only this GPU (CUDA_VISIBLE_DEVICES is its UUID), so its index in the worker is 0.
    device = Device("cuda", 0, name, uuid, (capability[0], capability[1]), driver=driver)
    return Machine(device, _slug(f"{name} driver {driver}"), description)


def gpu_uuids() -> list[str]:
    """Return the UUIDs of the GPUs that `gpus` returns."""
    return [machine.device.uuid for machine in gpus()]


def named_machine(gpu: NamedGpu) -> Machine:
    """Return a machine with a GPU that this computer need not have. The GPU has no UUID, and its name is the slug."""
    device = Device("cuda", name=gpu.name, compute_capability=gpu.compute_capability)
    return Machine(device, _slug(gpu.name), {"gpu": gpu.name, "uuid": "", **_host()})


def cpu() -> Machine:
    """Return the CPU of this machine."""
    host = _host()
    cores, quota = len(os.sched_getaffinity(0)), cpu_quota()
    flags = _cpuinfo("flags") or _cpuinfo("Features")
    features = tuple(name for name in CPU_FEATURES if name in flags.split())
    description: dict[str, object] = {**host, "uuid": _host_identity(), "cores": cores, "features": features}
    limited = f" limited to {quota:g}" if quota < cores else ""
    description |= {"cpu_quota": quota} if limited else {}
    device = Device("cpu", 0, host["cpu"], features=features)
    return Machine(device, _slug(f"cpu {host['cpu']} {cores} cores{limited}"), description)


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Return the CPU limit of the cgroups of this process, in CPUs; infinite without a limit.

    Version 2 has `cpu.max` in the group and in each group above it. Version 1 has `cpu.cfs_quota_us` and
    `cpu.cfs_period_us` (Linux, Documentation/admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst).
    """
    limits = [float("inf")]
    try:
        lines = [line.split(":", 2) for line in own.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return limits[0]
    for _, controllers, path in (line for line in lines if len(line) == 3):
        names = controllers.split(",")
        bases = [root, root / "unified"] if controllers == "" else [root / "cpu", root / "cpu,cpuacct"]
        if controllers and "cpu" not in names:
            continue
        for base in bases:
            group = base / path.lstrip("/")
            # In a container the path may be that of the host. Then the root of the mount is the group of this process.
            limits += [
                _quota_of(parent) for parent in (group, *group.parents) if parent == base or base in parent.parents
            ]
    return min(limits)


def _quota_of(group: Path) -> float:
    """Return the limit of one cgroup in CPUs; infinite without a limit."""
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (group / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        return int(quota) / int(period) if quota != "max" and int(quota) > 0 else float("inf")
    except (OSError, ValueError, ZeroDivisionError):
        return float("inf")


def _host() -> dict[str, str]:
    model = _cpuinfo("model name") or platform.processor() or platform.machine()
    return {"cpu": model, "system": f"{platform.system()} {platform.release()}", "architecture": platform.machine()}


def _host_identity() -> str:
    """Return a hash that distinguishes hosts but does not reveal their names.

    Copies of one image share a machine id, so the hash has the host name and the CPU as well.
    """
    try:
        identity = Path("/etc/machine-id").read_text(encoding="utf-8").strip()
    except OSError:
        identity = ""
    described = "\n".join((identity, platform.node(), _host()["cpu"]))
    return "HOST-" + hashlib.sha256(described.encode()).hexdigest()[:12]


def _cpuinfo(key: str) -> str:
    try:
        match = re.search(
            rf"^{re.escape(key)}\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE
        )
    except OSError:
        return ""
    return match.group(1).strip() if match else ""


def _visible(index: int, uuid: str) -> bool:
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return allowed is None or any(
        entry.strip() == str(index) or uuid.startswith(entry.strip()) for entry in allowed.split(",") if entry
    )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")
