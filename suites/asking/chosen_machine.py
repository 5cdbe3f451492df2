"""The machine of a cell: a GPU of this computer, its CPU, or a GPU that is only named."""

from __future__ import annotations

from backends.description import BackendDescription
from backends.options import BackendOptions
from suites.measuring.machine import Machine, cpu, gpus, named_machine
from suites.schema.config import RunConfig
from suites.schema.enums import Until
from suites.schema.refusals import Refused


class NoGpu(Refused):
    """The cell needs a GPU, and none is visible."""


def machine_of(config: RunConfig, backend: BackendDescription, options: BackendOptions) -> Machine:
    """Return the GPU or CPU of a cell.

    A cell that builds for a named GPU and measures nothing needs no GPU: its machine is that GPU.

    Raises:
        Refused: the backend does not run on the requested device, or this machine has no such device; NoGpu if it has
            no GPU.
    """
    supported, requested = backend.devices, config.device.name
    visible = gpus() if "cuda" in supported and requested != "cpu" else []
    if requested == "cpu" and "cpu" not in supported:
        raise Refused(f"backend={backend.name} runs on a GPU only; choose device=cuda or another backend")
    if requested == "cuda" and "cuda" not in supported:
        raise Refused(f"backend={backend.name} runs on the CPU only; choose device=cpu or another backend")
    named = options.named_gpu()
    if named is not None and config.until is not Until.measure:
        return named_machine(named)
    if not visible and (requested == "cuda" or "cpu" not in supported):
        raise NoGpu(
            f"backend={backend.name} with device={requested} needs an NVIDIA GPU and none is visible here; "
            "run on a machine with a GPU (nvidia-smi must list it)"
            + ("" if "cpu" not in supported else ", or choose device=cpu")
            + ("" if named is None else f", or add until=build, which builds for {named.name} without a GPU")
        )
    if not visible and config.gpu == 0:
        return cpu()
    if not 0 <= config.gpu < len(visible):
        raise Refused(
            f"gpu={config.gpu} is not one of the {len(visible)} GPUs visible to this backend; the first is gpu=0"
            if visible
            else f"gpu={config.gpu}: no GPU is visible to this backend; use the default, gpu=0"
        )
    return visible[config.gpu]
