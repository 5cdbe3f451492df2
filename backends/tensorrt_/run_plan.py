"""Run an exported TensorRT plan. Needs tensorrt or tensorrt_rtx, cuda-python and numpy only."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

if TYPE_CHECKING:
    import tensorrt as trt


class Settings(TypedDict):
    """`settings` in manifest.json.

    Attributes:
        module: Python module of TensorRT: "tensorrt" or "tensorrt_rtx".
        file: name of the plan.
        plugin_libraries: files of plugins.
        host_code: whether the plan has code for the host.
        built_for: the GPU and the release that the plan needs.
    """

    module: str
    file: str
    plugin_libraries: list[str]
    host_code: bool
    built_for: str


def open_model(folder: Path, settings: Settings) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Open the plan of an exported folder. A plan contains code: open only a plan that you trust.

    Args:
        folder: the exported folder.
        settings: `settings` in manifest.json.

    Returns:
        A function from int32 arrays by input name to the plan's output, FP32. Its axes are those in manifest.json.

    Raises:
        RuntimeError: TensorRT cannot read the plan, or CUDA reports an error.
    """
    trt = importlib.import_module(settings["module"])
    logger = trt.Logger(trt.Logger.ERROR)
    trt.init_libnvinfer_plugins(logger, "")
    for library in settings["plugin_libraries"]:
        trt.get_plugin_registry().load_library(str(folder / library))
    reader = trt.Runtime(logger)
    reader.engine_host_code_allowed = settings["host_code"]
    engine = reader.deserialize_cuda_engine((folder / settings["file"]).read_bytes())
    if engine is None:
        raise RuntimeError(f"TensorRT {trt.__version__} cannot read the plan, which needs {settings['built_for']}")
    context = engine.create_execution_context()
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    (output,) = (name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT)
    types = {trt.DataType.FLOAT: np.float32, trt.DataType.HALF: np.float16}
    host_type = types.get(engine.get_tensor_dtype(output), np.uint16)  # the bits of BF16

    def run(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        with _Memory() as memory:
            context.set_optimization_profile_async(_profile(engine, arrays), memory.stream)
            for name, array in arrays.items():
                context.set_input_shape(name, array.shape)
                context.set_tensor_address(name, memory.copy_in(np.ascontiguousarray(array)))
            hidden = np.empty(tuple(context.get_tensor_shape(output)), host_type)
            pointer = memory.allocate(hidden.nbytes)
            context.set_tensor_address(output, pointer)
            if not context.execute_async_v3(memory.stream):
                raise RuntimeError("TensorRT could not run the plan; its messages have the reason")
            memory.copy_out(hidden, pointer)
        if host_type is np.uint16:
            return (hidden.astype(np.uint32) << 16).view(np.float32)
        return hidden.astype(np.float32)

    return run


def _profile(engine: trt.ICudaEngine, arrays: Mapping[str, np.ndarray]) -> int:
    """Return the smallest optimization profile that contains the sizes of all arrays.

    Raises:
        RuntimeError: no profile does.
    """
    fitting = []
    for index in range(engine.num_optimization_profiles):
        ranges = {name: engine.get_tensor_profile_shape(name, index) for name in arrays}
        if all(_contains(ranges[name], array.shape) for name, array in arrays.items()):
            fitting.append((sum(math.prod(largest) for _, _, largest in ranges.values()), index))
    if not fitting:
        raise RuntimeError("no optimization profile of the plan contains these shapes; see profiles in manifest.json")
    return min(fitting)[1]


def _contains(sizes: Sequence[Sequence[int]], shape: tuple[int, ...]) -> bool:
    smallest, _, largest = sizes
    return all(low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True))


class _Memory:
    """Device memory and a stream, freed at the end of the block."""

    def __enter__(self) -> _Memory:
        from cuda.bindings import runtime

        self._cuda = runtime
        self._pointers: list[int] = []
        self.stream = int(self._checked(runtime.cudaStreamCreate()))
        return self

    def __exit__(self, *raised: object) -> None:
        for pointer in self._pointers:
            self._cuda.cudaFree(pointer)
        self._cuda.cudaStreamDestroy(self.stream)

    def allocate(self, size: int) -> int:
        pointer = int(self._checked(self._cuda.cudaMalloc(size)))
        self._pointers.append(pointer)
        return pointer

    def copy_in(self, array: np.ndarray) -> int:
        pointer = self.allocate(array.nbytes)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._checked(self._cuda.cudaMemcpy(pointer, array.ctypes.data, array.nbytes, kind))
        return pointer

    def copy_out(self, array: np.ndarray, pointer: int) -> None:
        self._checked(self._cuda.cudaStreamSynchronize(self.stream))
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._checked(self._cuda.cudaMemcpy(array.ctypes.data, pointer, array.nbytes, kind))

    def _checked(self, returned: tuple[Any, ...]) -> Any:
        status, *values = returned
        if status != self._cuda.cudaError_t.cudaSuccess:
            raise RuntimeError(f"CUDA: {status.name}")
        return values[0] if values else None
