"""Findings of backends about their libraries, with stubs of the libraries."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from tensorrt_.fake_api import fake_api

from backends.base import Device, Unavailable
from backends.description import SourceKind
from backends.export_packages import PACKAGES, missing_packages
from backends.finding import MISSING, OK, WARNING, Finding
from backends.null_.null import Null
from backends.ort_ import ort
from backends.ort_.ort import OnnxRuntime
from backends.tensorrt_.onnx_backend import TensorRT
from backends.tensorrt_.plugin_backend import TensorRTPlugin
from backends.torch_ import torch_findings as findings
from backends.torch_.packed import TorchPacked
from backends.torch_.pytorch import TorchCompile, TorchEager

CPU, GPU = Device("cpu"), Device("cuda", 0, "NVIDIA Test", "GPU-0", (9, 0))


def fake_torch(cuda: str | None, available: bool = True, cudnn: int | None = 91000) -> Any:
    return SimpleNamespace(
        __version__="2.13.0",
        version=SimpleNamespace(cuda=cuda),
        cuda=SimpleNamespace(is_available=lambda: available),
        backends=SimpleNamespace(cudnn=SimpleNamespace(version=lambda: cudnn)),
    )


@pytest.mark.parametrize(
    ("torch", "device", "expected"),
    [
        (fake_torch(None), CPU, [("PyTorch", OK, "2.13.0, built for CPUs")]),
        (fake_torch(None), GPU, [("PyTorch", MISSING, "2.13.0, built for CPUs; it cannot use the GPU")]),
        (fake_torch("13.0", available=False), GPU,
         [("PyTorch", MISSING, "2.13.0, built for CUDA 13.0; it finds no usable GPU or driver")]),
        (fake_torch("13.0"), GPU, [("PyTorch", OK, "2.13.0, built for CUDA 13.0"), ("cuDNN", OK, "91000")]),
        (fake_torch("13.0", cudnn=None), GPU,
         [("PyTorch", OK, "2.13.0, built for CUDA 13.0"), ("cuDNN", WARNING, "PyTorch finds none")]),
    ],
)  # fmt: skip
def test_pytorch(
    torch: Any, device: Device, expected: list[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(findings, "versions_of", lambda names: {"torch": "2.13.0"})
    for backend in (TorchEager(), TorchPacked()):
        assert [(item.name, item.status, item.text) for item in backend.findings(device)] == expected
    assert all(item.fix for item in TorchEager().findings(device) if item.status != OK)


def test_pytorch_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "versions_of", lambda names: {})
    fix = f"{sys.executable} -m pip install torch==2.13.0"
    assert TorchEager().findings(CPU) == (Finding("PyTorch", MISSING, "not installed", fix),)


@pytest.mark.parametrize(
    ("programs", "triton", "device", "status", "text"),
    [
        (("gcc", "g++"), "", CPU, OK, "gcc 12.2.0, g++ 12.2.0, no nvcc (not needed)"),
        (("gcc",), "", CPU, MISSING, "no clang++ or g++; gcc 12.2.0, no nvcc (not needed)"),
        (("gcc", "nvcc"), "3.5", GPU, OK, "gcc 12.2.0, triton 3.5, nvcc 12.2.0"),
        (("gcc",), "", GPU, MISSING, "no triton; gcc 12.2.0, no nvcc (not needed)"),
        (("nvcc",), "3.5", GPU, MISSING, "no cc or clang or gcc; triton 3.5, nvcc 12.2.0"),
    ],
)
def test_compilers(
    programs: tuple[str, ...], triton: str, device: Device, status: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: name if name in programs else None)
    monkeypatch.setattr(findings, "versions_of", lambda names: {"triton": triton} if triton else {})
    monkeypatch.setattr(findings, "_version", lambda program: "12.2.0")
    (found,) = findings.compiler_findings(device)
    assert (found.status, found.text, bool(found.fix)) == (status, text, status != OK)


def test_only_torch_compile_needs_compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "versions_of", lambda names: {})
    assert [item.name for item in TorchCompile().findings(CPU)] == ["PyTorch", "compilers", "torchao"]


@pytest.mark.parametrize(
    ("printed", "version"),
    [("gcc (Debian 12.2.0-14) 12.2.0", "12.2.0"), ("Cuda compilation tools, release 13.0, V13.0.88", "13.0"), ("", "")],
)
def test_versions_of_compilers(printed: str, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", lambda *arguments, **named: SimpleNamespace(stdout=printed))
    assert findings._version("compiler") == version


def test_a_compiler_that_cannot_be_started_has_no_version() -> None:
    assert findings._version("/no/such/compiler") == ""


@pytest.mark.parametrize(
    ("providers", "device", "status"), [(("CPU",), CPU, OK), (("CPU",), GPU, MISSING), (("CUDA", "CPU"), GPU, OK)]
)
def test_onnxruntime(providers: tuple[str, ...], device: Device, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{name}ExecutionProvider" for name in providers]
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(get_available_providers=lambda: names))
    monkeypatch.setattr(ort, "versions_of", lambda packages: {"onnxruntime-gpu": "1.31.1"})
    (found,) = OnnxRuntime().findings(device)
    assert found.status == status
    assert found.text.startswith(f"1.31.1, execution providers: {', '.join(providers)}")
    monkeypatch.setattr(ort, "versions_of", lambda packages: {})
    assert OnnxRuntime().findings(device)[0].status == MISSING


def test_tensorrt() -> None:
    api = fake_api(version="10.16.1")
    assert TensorRT(lambda: api).findings(GPU) == (Finding("TensorRT", OK, "10.16.1"),)

    def missing() -> Any:
        raise Unavailable("TensorRT is not installed")

    for backend in (TensorRT(missing), TensorRTPlugin(missing)):
        (found,) = backend.findings(GPU)
        assert (found.status, found.text) == (MISSING, "TensorRT is not installed")
        assert found.fix.endswith("-m pip install tensorrt cuda-python")


@pytest.mark.parametrize("loaded", [True, False])
def test_the_plugin_library(loaded: bool) -> None:
    api = fake_api()
    api.trt.init_libnvinfer_plugins.return_value = loaded
    release, library = TensorRTPlugin(lambda: api).findings(GPU)
    assert release.text == "8.6.0"
    assert (library.name, library.status) == ("plugin library", OK if loaded else MISSING)


def test_a_backend_without_a_library_has_no_findings() -> None:
    assert Null().findings(CPU) == ()


def test_packages_of_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(PACKAGES) == set(SourceKind)
    assert missing_packages(SourceKind.none) == missing_packages(SourceKind.onnx) == ()
    monkeypatch.setattr("backends.export_packages.versions_of", lambda names: dict.fromkeys(("torch", "onnx"), "1"))
    assert missing_packages(SourceKind.onnx) == ("transformers", "safetensors", "onnx-graphsurgeon")
