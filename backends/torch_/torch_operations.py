"""Single operations of PyTorch: matrix products in each precision, copies, transfers and launches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from backends.base import (
    Artifact,
    Backend,
    BuildSpec,
    Device,
    Opening,
    Source,
    Unavailable,
    Unsupported,
    versions_of,
)
from backends.operations import (
    AND_WAIT,
    GRAPH_LAUNCH,
    KERNEL_LAUNCH,
    PRODUCT,
    TRANSFERS,
    LeftOut,
    Operation,
    OperationSession,
)
from backends.torch_.gpu_precisions import LEAST_CAPABILITY, missing_capability
from backends.torch_.torch_session import TorchSteps

if TYPE_CHECKING:
    import torch

GPU_ONLY = {
    "tf32": "TF32 is a number format of GPU tensor cores",
    "fp8": "torch._scaled_mm in FP8 is measured on GPUs only",
}

Work = Callable[[], "torch.Tensor"]


def missing_product(device: Device, precision: str) -> str:
    """Return why a device has no products in this precision; empty if it has them."""
    if device.kind == "cpu":
        return GPU_ONLY.get(precision, "")
    return missing_capability(device, precision)


class TorchOperations(Backend):
    distributions = ("torch",)

    def check(self, spec: BuildSpec) -> None:
        if reason := missing_product(spec.device, spec.precision):
            raise Unsupported(reason)
        if not versions_of(("torch",)):
            raise Unavailable("torch is not installed in this interpreter: pip install torch==2.13.0")

    def build(self, spec: BuildSpec, source: Source) -> Artifact:
        """Return the source: nothing is built."""
        return Artifact(source.checkpoint, source.sha256)

    def opening(self, spec: BuildSpec, artifact: Artifact) -> Opening:
        import torch

        yield "import", None
        if spec.threads:
            torch.set_num_threads(spec.threads)
        yield "load", TorchOperationSession(spec.device)


class TorchOperationSession(TorchSteps, OperationSession):
    """Operands are random normal numbers, in INT8 uniform from -127 to 127: zeros would take less power on a GPU."""

    def __init__(self, device: Device) -> None:
        super().__init__(device.kind, device.index)
        self._description = device
        self._work: Work = lambda: self._torch.empty(0)

    def operations(self, sizes: Sequence[int], size_in_bytes: int) -> tuple[list[Operation], list[LeftOut]]:
        reasons = {precision: missing_product(self._description, precision) for precision in LEAST_CAPABILITY}
        left_out = [LeftOut(PRODUCT, precision, reason) for precision, reason in reasons.items() if reason]
        products = [
            Operation(PRODUCT, precision, size) for precision, reason in reasons.items() if not reason for size in sizes
        ]
        on_cpu = self._description.kind == "cpu"
        copies = ("copy", "triad") if on_cpu else ("device copy", *TRANSFERS)
        launches = () if on_cpu else (KERNEL_LAUNCH, GRAPH_LAUNCH)
        return [
            *products,
            *(Operation(name, "", size_in_bytes) for name in copies),
            *(Operation(f"{name}{wait}") for name in launches for wait in ("", AND_WAIT)),
        ], left_out

    def select(self, operation: Operation) -> None:
        self._buffers.output, self._work = None, lambda: self._torch.empty(0)
        self.graphs.clear()
        with self._on_stream:
            self._work = self._product(operation) if operation.name == PRODUCT else self._other(operation)
        self.wait()

    def _product(self, operation: Operation) -> Work:
        torch, size, device = self._torch, operation.size, self._device
        if operation.precision == "int8":
            a, b = (torch.randint(-127, 128, (size, size), dtype=torch.int8, device=device) for _ in range(2))
            return lambda: torch._int_mm(a, b.t())
        a, b = (torch.randn(size, size, device=device) for _ in range(2))
        if operation.precision == "fp8":
            a8, b8, one = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn), torch.ones((), device=device)
            # cuBLAS has FP8 only with the second operand in columns. Fast accumulation is the fastest form.
            return lambda: torch._scaled_mm(
                a8, b8.t(), scale_a=one, scale_b=one, out_dtype=torch.float16, use_fast_accum=True
            )
        torch.set_float32_matmul_precision("high" if operation.precision == "tf32" else "highest")
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(operation.precision, torch.float32)
        left, right, out = a.to(dtype), b.to(dtype), torch.empty(size, size, dtype=dtype, device=device)
        return lambda: torch.matmul(left, right, out=out)

    def _other(self, operation: Operation) -> Work:
        torch, count, device = self._torch, max(1, operation.size // 4), self._device
        if operation.name == "triad":
            a, b, c = (torch.rand(count) for _ in range(3))
            return lambda: torch.add(b, c, alpha=3.0, out=a)
        if operation.name in ("copy", "device copy"):
            source, target = (torch.rand(count, device=device) for _ in range(2))
            return lambda: target.copy_(source)
        if operation.name in TRANSFERS:
            pinned = "pinned" in operation.name
            host, on_device = torch.rand(count), torch.rand(count, device=device)
            host = host.pin_memory() if pinned else host
            to, origin = (on_device, host) if operation.name.endswith("to device") else (host, on_device)
            return lambda: to.copy_(origin, non_blocking=pinned)
        return partial(self._launch, torch.empty(0, device=device))

    def _launch(self, nothing: torch.Tensor) -> torch.Tensor:
        """Launch a kernel that waits for 0 cycles."""
        self._torch.cuda._sleep(0)
        return nothing

    def _forward(self) -> torch.Tensor:
        return self._work()

    def _in_shape(self, output: torch.Tensor) -> torch.Tensor:
        return output if output.dtype == self._torch.int32 else output.float()
