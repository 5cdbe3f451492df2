"""The ONNX export of each family, compared with PyTorch and transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import TINY_MODELS

from backends.base import Unsupported
from backends.cache import ArtifactCache
from backends.model.checkpoint import find_checkpoint, input_names, load_encoder, run_encoder
from backends.model.reference import ModelReference
from backends.onnx_ import export_graph
from backends.onnx_.onnx_source import export_onnx

Tiny = Callable[[str], tuple[Path, str]]


@pytest.mark.parametrize("family", TINY_MODELS)
def test_every_family_agrees_with_pytorch_at_another_shape(
    family: str, tiny: Tiny, shared_cache: ArtifactCache
) -> None:
    folder, sha256 = tiny(family)
    artifact = export_onnx(folder, sha256, shared_cache)
    model = onnx.load(str(artifact.path))
    assert model.opset_import[0].version == 17
    assert {i.type.tensor_type.elem_type for i in model.graph.input} == {onnx.TensorProto.INT32}
    assert tuple(i.name for i in model.graph.input) == input_names(folder)

    ids = np.random.default_rng(1).integers(5, 400, (5, 40)).astype(np.int32)
    mask = np.ones_like(ids)
    for row, length in enumerate((40, 1, 17, 39, 8)):
        mask[row, length:] = 0
        ids[row, length:] = json.loads((folder / "config.json").read_text())["pad_token_id"]
    arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    feeds = {name: arrays[name] for name in input_names(folder)}
    session = onnxruntime.InferenceSession(str(artifact.path), providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, feeds)
    with torch.inference_mode():
        expected = run_encoder(load_encoder(folder), feeds).numpy()
    np.testing.assert_allclose(outputs[mask > 0], expected[mask > 0], atol=2e-5)


def test_the_attention_function_agrees_with_transformers(tiny: Tiny) -> None:
    from transformers import AutoModel

    folder, _ = tiny("bert")
    reference = AutoModel.from_pretrained(folder, attn_implementation="eager", add_pooling_layer=False).eval()
    ids = torch.randint(5, 1000, (2, 12), dtype=torch.int32)
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    with torch.inference_mode():
        expected = reference(input_ids=ids, attention_mask=mask, token_type_ids=ids * 0).last_hidden_state
        outputs = run_encoder(
            load_encoder(folder),
            {"input_ids": ids.numpy(), "attention_mask": mask.numpy(), "token_type_ids": (ids * 0).numpy()},
        )
    torch.testing.assert_close(outputs[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=0)


def test_an_export_that_differs_from_transformers_is_not_kept(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_graph, "MASK_VALUE", 0.0)  # then attention does not ignore padding
    folder, sha256 = tiny("bert")
    with pytest.raises(ArithmeticError, match="exported ONNX file differs from transformers"):
        export_onnx(folder, sha256, ArtifactCache(tmp_path))
    assert not list(tmp_path.rglob("model.onnx"))


def test_random_weights_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    model = ModelReference("random", seed=7, architecture=TINY_MODELS["bert"])
    first = find_checkpoint(model, ArtifactCache(tmp_path / "first"))
    second = find_checkpoint(model, ArtifactCache(tmp_path / "second"))
    other_seed = find_checkpoint(replace(model, seed=8), ArtifactCache(tmp_path / "first"))
    assert first.weights_sha256 == second.weights_sha256 != other_seed.weights_sha256
    assert first.identity == second.identity != other_seed.identity


def test_a_checkpoint_with_missing_encoder_weights_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    """transformers would initialize missing weights at random, differently in every process."""
    from safetensors.torch import load_file, save_file

    folder, _ = tiny("bert")
    kept = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if "layer.1." not in name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(folder / "config.json", tmp_path)
    with pytest.raises(Unsupported, match=r"lacks weights of its encoder, .*layer\.1\..* and \d+ more"):
        load_encoder(tmp_path)
