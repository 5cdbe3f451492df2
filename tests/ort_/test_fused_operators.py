"""The fusion of onnxruntime gives the same file without the work that it does not need."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from conftest import OTHER_MODELS, TINY_MODELS

from backends.cache import ArtifactCache
from backends.model.checkpoint_files import read_config
from backends.model.families import size_of
from backends.onnx_.onnx_source import export_onnx
from backends.ort_ import fused_operators
from backends.ort_.fused_operators import fuse_operators

Tiny = Callable[[str], tuple[Path, str]]

WITHOUT_TORCH = """
import sys
from pathlib import Path

sys.modules |= {"torch": None, "transformers": None}  # an import of them raises an error
from backends.ort_.fused_operators import fuse_operators

source, checkpoint, path = map(Path, sys.argv[1:])
assert fuse_operators(source, checkpoint, path, True, True)["fused"]["Attention"] == 2
"""


@pytest.fixture
def fuse(tiny: Tiny, shared_cache: ArtifactCache, tmp_path: Path) -> Callable[..., bytes]:
    """Return a function that fuses the export of a family and returns the bytes of the file."""

    def run(family: str, half: bool = True) -> bytes:
        folder, identity = tiny(family)
        fuse_operators(export_onnx(folder, identity, shared_cache).path, folder, tmp_path / "fused.onnx", half, True)
        return (tmp_path / "fused.onnx").read_bytes()

    return run


def values_of_matrices(model: Any) -> int:
    """Return the bytes of the values of weights with several dimensions."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer if len(tensor.dims) > 1)


@pytest.mark.parametrize("family", [*TINY_MODELS, *OTHER_MODELS])
def test_shortcuts_give_the_same_file(family: str, fuse: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    fused = fuse(family)
    monkeypatch.setattr(fused_operators, "shapes_without_matrices", nullcontext)
    monkeypatch.setattr(fused_operators, "faster_conversion", lambda _: nullcontext())
    assert fused == fuse(family)


def test_shapes_are_inferred_without_copies_of_matrices(
    fuse: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxruntime.transformers.optimizer import OnnxModel

    copied: list[int] = []
    infer = OnnxModel.infer_runtime_shape

    def observed(self: Any, *args: Any, **named: Any) -> Any:
        copied.append(values_of_matrices(self.model))
        return infer(self, *args, **named)

    monkeypatch.setattr(OnnxModel, "infer_runtime_shape", observed)
    fused = fuse("bert", half=False)
    assert set(copied) == {0}
    assert len(copied) > 2
    assert OnnxModel.infer_runtime_shape is observed  # as before

    def failing(self: Any, *args: Any, **named: Any) -> Any:
        """Fail as onnxruntime does when it needs a value that is not there."""
        copied.append(values_of_matrices(self.model))
        if not copied[-1]:
            self.enable_shape_infer = False
            return None
        return infer(self, *args, **named)

    copied.clear()
    monkeypatch.setattr(OnnxModel, "infer_runtime_shape", failing)
    assert fuse("bert", half=False) == fused
    assert all(empty == 0 < whole for empty, whole in zip(copied[::2], copied[1::2], strict=True))


def test_fusion_needs_neither_torch_nor_transformers(tiny: Tiny, shared_cache: ArtifactCache, tmp_path: Path) -> None:
    folder, identity = tiny("bert")
    source = export_onnx(folder, identity, shared_cache).path
    command = [sys.executable, "-c", WITHOUT_TORCH, str(source), str(folder), str(tmp_path / "model.onnx")]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    assert (tmp_path / "model.onnx").stat().st_size > 0


@pytest.mark.parametrize("family", [*TINY_MODELS, *OTHER_MODELS])
def test_the_sizes_of_the_fusion_are_those_of_transformers(family: str, tiny: Tiny) -> None:
    from transformers import AutoConfig

    folder, _ = tiny(family)
    config = AutoConfig.from_pretrained(folder)
    for name in ("num_attention_heads", "hidden_size", "num_hidden_layers"):
        assert size_of(read_config(folder), name) == getattr(config, name)
