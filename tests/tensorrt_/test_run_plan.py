"""The exported runner of a plan, with mocks of tensorrt and of the CUDA runtime in host memory."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backends.tensorrt_.run_plan import open_model

PROFILES = (((1, 8), (1, 8), (1, 8)), ((1, 8), (4, 16), (4, 16)))
"""A fixed profile, and a wide one that contains it: min, opt and max [batch, sequence]."""
HIDDEN = 2
SETTINGS = {
    "module": "tensorrt", "file": "model.plan", "plugin_libraries": ["own.so"], "host_code": False,
    "built_for": "tensorrt 1 on GPU",
}  # fmt: skip
DTYPES = {"float": np.float32, "half": np.float16, "bf16": np.uint16}


class Runtime:
    """Mock of cuda.bindings.runtime: device memory is host memory."""

    def __init__(self) -> None:
        self.status = SimpleNamespace(name="cudaSuccess")
        self.cudaError_t = SimpleNamespace(cudaSuccess=self.status)
        self.cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
        self.buffers: dict[int, Any] = {}
        self.streams = 0

    def cudaStreamCreate(self) -> Any:
        self.streams += 1
        return self.status, 7

    def cudaStreamDestroy(self, stream: int) -> None:
        self.streams -= 1

    def cudaStreamSynchronize(self, stream: int) -> Any:
        return (self.status,)

    def cudaMalloc(self, size: int) -> Any:
        buffer = ctypes.create_string_buffer(size)
        self.buffers[ctypes.addressof(buffer)] = buffer
        return self.status, ctypes.addressof(buffer)

    def cudaFree(self, pointer: int) -> None:
        del self.buffers[pointer]

    def cudaMemcpy(self, target: int, source: int, size: int, kind: int) -> Any:
        ctypes.memmove(target, source, size)
        return (self.status,)


class Context:
    """Mock of an execution context whose output repeats the ids HIDDEN times."""

    def __init__(self, dtype: str) -> None:
        self.dtype, self.profiles, self.addresses = dtype, [], {}  # type: ignore[var-annotated]
        self.shape: tuple[int, ...] = ()

    def set_optimization_profile_async(self, profile: int, stream: int) -> None:
        self.profiles.append(profile)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def set_tensor_address(self, name: str, pointer: int) -> None:
        self.addresses[name] = pointer

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (*self.shape, HIDDEN)

    def execute_async_v3(self, stream: int) -> bool:
        count = int(np.prod(self.shape))
        ids = np.ctypeslib.as_array((ctypes.c_int32 * count).from_address(self.addresses["input_ids"]))
        values = np.repeat(ids.astype(np.float32), HIDDEN)
        if self.dtype == "bf16":
            values = (values.view(np.uint32) >> 16).astype(np.uint16)  # type: ignore[assignment]
        values = np.ascontiguousarray(values.astype(DTYPES[self.dtype]))
        ctypes.memmove(self.addresses["output"], values.ctypes.data, values.nbytes)
        return True


class Engine:
    num_io_tensors, num_optimization_profiles = 2, len(PROFILES)

    def __init__(self, dtype: str) -> None:
        self.context, self.dtype = Context(dtype), dtype

    def get_tensor_name(self, index: int) -> str:
        return ("input_ids", "output")[index]

    def get_tensor_mode(self, name: str) -> str:
        return name

    def get_tensor_dtype(self, name: str) -> str:
        return self.dtype

    def get_tensor_profile_shape(self, name: str, profile: int) -> Any:
        return PROFILES[profile]

    def create_execution_context(self) -> Context:
        return self.context


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    package, runtime = ModuleType("cuda.bindings"), Runtime()
    package.runtime = runtime  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuda.bindings", package)
    return runtime


def opened(monkeypatch: pytest.MonkeyPatch, folder: Path, engine: Engine | None) -> Any:
    """Open the model with a mock of TensorRT whose plan is `engine`; return the function and the loaded libraries."""
    (folder / "model.plan").write_bytes(b"plan")
    loaded: list[str] = []
    trt = SimpleNamespace(
        Logger=type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None}),
        init_libnvinfer_plugins=lambda logger, name: None,
        get_plugin_registry=lambda: SimpleNamespace(load_library=loaded.append),
        Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda plan: engine),
        TensorIOMode=SimpleNamespace(OUTPUT="output"),
        DataType=SimpleNamespace(FLOAT="float", HALF="half"),
        __version__="9.9",
    )
    monkeypatch.setitem(sys.modules, "tensorrt", trt)  # type: ignore[arg-type]
    return open_model(folder, SETTINGS), loaded


@pytest.mark.parametrize("dtype", ["float", "half", "bf16"])
def test_outputs_are_fp32_and_nothing_stays_allocated(
    dtype: str, cuda: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine = Engine(dtype)
    run, loaded = opened(monkeypatch, tmp_path, engine)
    assert loaded == [str(tmp_path / "own.so")]
    ids = np.arange(32, dtype=np.int32).reshape(2, 16)
    hidden = run({"input_ids": ids})
    assert hidden.dtype == np.float32
    np.testing.assert_array_equal(hidden, np.repeat(ids[..., None], HIDDEN, 2))
    assert (cuda.buffers, cuda.streams) == ({}, 0)


def test_the_smallest_profile_that_contains_the_shape_is_used(
    cuda: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine = Engine("float")
    run, _ = opened(monkeypatch, tmp_path, engine)
    run({"input_ids": np.ones((1, 8), np.int32)})
    run({"input_ids": np.ones((2, 8), np.int32)})
    assert engine.context.profiles == [0, 1]
    with pytest.raises(RuntimeError, match="no optimization profile of the plan contains these shapes"):
        run({"input_ids": np.ones((5, 8), np.int32)})
    assert cuda.buffers == {}


def test_a_plan_of_another_release_names_what_it_needs(
    cuda: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match=r"TensorRT 9\.9 cannot read the plan, which needs tensorrt 1 on GPU"):
        opened(monkeypatch, tmp_path, None)


def test_an_error_of_cuda_is_named(cuda: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run, _ = opened(monkeypatch, tmp_path, Engine("float"))
    cuda.status = SimpleNamespace(name="cudaErrorNoDevice")
    with pytest.raises(RuntimeError, match="CUDA: cudaErrorNoDevice"):
        run({"input_ids": np.ones((1, 8), np.int32)})
