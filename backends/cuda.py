"""CUDA objects for all GPU backends, through cuda-python: stream, events, graph, device memory, pinned memory."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from cuda.bindings import runtime

from backends.base import Array
from backends.stream import Event

FILLED = 256 << 20
"""Bytes that `CudaStream.occupy` fills with each memset to keep the device busy."""

ADVICE = {
    "cudaErrorMemoryAllocation": "too little device memory is free: free some, or use smaller shapes",
    "cudaErrorInsufficientDriver": "the driver is older than this cuda-python: update the driver, or, if it is older "
    "than 580, pip install 'cuda-python>=12.8,<13' together with TensorRT",
}
"""Cause and fix of a CUDA error, by the name of the error."""


def checked(result: tuple[Any, ...]) -> Any:
    """Return the value of a cuda-python call.

    Raises:
        RuntimeError: CUDA reported an error. The message starts with the fix if `ADVICE` has one, and names the error.
    """
    error, *values = result
    if error != runtime.cudaError_t.cudaSuccess:
        _, text = runtime.cudaGetErrorString(error)
        message = f"CUDA: {error.name}: {text.decode()}"
        raise RuntimeError(f"{ADVICE[error.name]} ({message})" if error.name in ADVICE else message)
    return values[0] if len(values) == 1 else tuple(values)


@contextlib.contextmanager
def profiler_range() -> Iterator[None]:
    """Limit ncu --profile-from-start off, or nsys --capture-range=cudaProfilerApi, to the work of this context."""
    checked(runtime.cudaProfilerStart())
    try:
        yield
    finally:
        checked(runtime.cudaProfilerStop())


def use_device(index: int) -> None:
    """Make a device the current device of this thread and create its primary context."""
    checked(runtime.cudaSetDevice(index))


def free_memory() -> int:
    """Return the free memory of the current device in bytes."""
    return int(checked(runtime.cudaMemGetInfo())[0])


class CudaEvent:
    """Timing event of one stream."""

    def __init__(self, stream: CudaStream) -> None:
        self._stream = stream
        self.handle = checked(runtime.cudaEventCreate())

    def record(self) -> None:
        checked(runtime.cudaEventRecord(self.handle, self._stream.handle))

    def reached(self) -> bool:
        (error,) = runtime.cudaEventQuery(self.handle)
        return bool(error == runtime.cudaError_t.cudaSuccess)

    def nanoseconds_since(self, earlier: Event) -> int:
        assert isinstance(earlier, CudaEvent)
        return round(1e6 * float(checked(runtime.cudaEventElapsedTime(earlier.handle, self.handle))))

    def __del__(self) -> None:
        runtime.cudaEventDestroy(self.handle)


class CudaStream:
    """Stream that does not synchronize with the default stream."""

    def __init__(self, device: int) -> None:
        use_device(device)
        self.handle = checked(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))
        self._filled: DeviceArray | None = None
        self._fill_ns = 0.0

    def event(self) -> CudaEvent:
        return CudaEvent(self)

    def synchronize(self) -> None:
        checked(runtime.cudaStreamSynchronize(self.handle))

    def occupy(self, nanoseconds: int) -> None:
        """Keep the device busy with memsets of 256 MiB. The device needs at least ten times as long as the host."""
        if self._filled is None:
            self._filled = DeviceArray(FILLED)
            before, after = self.event(), self.event()
            for mark in (before, after):  # the first fill loads its kernel
                self._fill()
                mark.record()
            self.synchronize()
            self._fill_ns = max(1.0, float(after.nanoseconds_since(before)))
        for _ in range(1 + int(nanoseconds / self._fill_ns)):
            self._fill()

    def _fill(self) -> None:
        assert self._filled is not None
        checked(runtime.cudaMemsetAsync(self._filled.pointer, 0, FILLED, self.handle))

    def free_memory(self) -> int:
        return free_memory()

    def copy_in(self, device_pointer: int, host: Array) -> None:
        """Enqueue a copy of contiguous `host` to the device. It is asynchronous only from pinned memory."""
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        checked(runtime.cudaMemcpyAsync(device_pointer, host.ctypes.data, host.nbytes, kind, self.handle))

    def copy_out(self, host: Array, device_pointer: int) -> None:
        """Enqueue a copy from the device into contiguous `host`."""
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        checked(runtime.cudaMemcpyAsync(host.ctypes.data, device_pointer, host.nbytes, kind, self.handle))


class CudaGraph:
    """CUDA graph of the operations that `work` enqueues on a stream. `launch` replays it."""

    def __init__(self, stream: CudaStream, work: Callable[[], None]) -> None:
        self._stream = stream
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        checked(runtime.cudaStreamBeginCapture(stream.handle, mode))
        try:
            work()
        finally:
            # Also after an error: a stream in capture mode cannot run other work.
            ended = runtime.cudaStreamEndCapture(stream.handle)
        graph = checked(ended)
        self._executable = checked(runtime.cudaGraphInstantiate(graph, 0))
        checked(runtime.cudaGraphDestroy(graph))

    def launch(self) -> None:
        checked(runtime.cudaGraphLaunch(self._executable, self._stream.handle))

    def __del__(self) -> None:
        if hasattr(self, "_executable"):
            runtime.cudaGraphExecDestroy(self._executable)


class DeviceArray:
    """Device memory of `size` bytes, freed with this object. `pointer` is its address."""

    def __init__(self, size: int) -> None:
        self.pointer = int(checked(runtime.cudaMalloc(size)))

    def copy_from(self, host: Array) -> None:
        """Copy contiguous `host` to the device; return when the copy is done."""
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        checked(runtime.cudaMemcpy(self.pointer, host.ctypes.data, host.nbytes, kind))

    def __del__(self) -> None:
        if hasattr(self, "pointer"):
            runtime.cudaFree(self.pointer)


class PinnedArray:
    """Numpy array in page-locked host memory, freed with this object."""

    def __init__(self, shape: tuple[int, ...], dtype: type[np.generic] | np.dtype) -> None:
        element_type = np.dtype(dtype)
        size = int(np.prod(shape)) * element_type.itemsize
        self._pointer = checked(runtime.cudaHostAlloc(size, runtime.cudaHostAllocDefault))
        buffer = memoryview((ctypes.c_byte * size).from_address(int(self._pointer)))
        self.array: Array = np.frombuffer(buffer, dtype=element_type).reshape(shape)

    def __del__(self) -> None:
        runtime.cudaFreeHost(self._pointer)
