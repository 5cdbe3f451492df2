"""Dense modules after the pooling: embeddings equal those of sentence-transformers, and faulty files are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from word_models import word_model

from backends.base import Array, BuildSpec, Device, Shape, Source, Unavailable, Unsupported
from backends.cache import ArtifactCache
from backends.inputs.tokenized import tokenize_texts
from backends.model.checkpoint import input_names
from backends.model.checkpoint_files import check_files, read_config
from backends.model.heads import check_output
from backends.model.hub import HUB_FILES
from backends.model.identity import identity_of
from backends.model_output import Output, resolve_output
from backends.onnx_.onnx_source import prepare_source
from backends.quantization_options import QuantizationOptions
from backends.registry import describe, load_backend

TEXTS = ("the cat sat on a mat", "who ran to the sea", "a red dog and a small cat saw it")
OLD_SWITCHES = {
    "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True,
    "pooling_mode_mean_sqrt_len_tokens": False,
}  # fmt: skip
EMBEDDING = Output("embedding", per_token=False)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint that sentence-transformers saved: max and mean, a Dense module, a norm. Its pooling file is
    one of an older version, which has a switch for each mode."""
    library = pytest.importorskip("sentence_transformers")
    import torch
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    base, folder = word_model(tmp_path_factory.mktemp("base")), tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    modules = [Transformer(str(base)), Pooling(64, ("max", "mean")), Dense(128, 16), Normalize()]
    library.SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    file = folder / "1_Pooling" / "config.json"
    assert json.loads(file.read_text())["pooling_mode"] == ["max", "mean"]
    file.write_text(json.dumps({"word_embedding_dimension": 64, **OLD_SWITCHES}))
    return folder


def embeddings(backend_name: str, folder: Path, texts: Sequence[str], cache: ArtifactCache) -> Array:
    features, shape = tokenize_texts(folder, texts, 32), Shape(len(texts), 16)
    backend, output = load_backend(backend_name), resolve_output(Output("auto"), read_config(folder), folder)
    spec = BuildSpec(
        "fp32", Device(), (shape,), False, cache.root, describe(backend_name).options(), output=output, threads=1
    )
    source = Source(folder, "")
    if describe(backend_name).source.name == "onnx":
        form, identity = backend.source_form(spec), identity_of(folder)
        source = prepare_source(folder, identity, form, QuantizationOptions(), [], 0, cache, output=output)
    with backend.open(spec, backend.build(spec, source)) as session:
        session.load(features.feeds(range(len(texts)), shape, input_names(folder)))
        session.step()
        session.wait()
        return np.array(session.fetch(), np.float32)


@pytest.mark.parametrize("backend", ["torch_eager", "torch_packed", "ort", "openvino"])
def test_poolings_before_a_dense_module_are_joined_in_the_order_of_sentence_transformers(
    backend: str, encoder: Path, shared_cache: ArtifactCache
) -> None:
    import sentence_transformers

    expected = sentence_transformers.SentenceTransformer(str(encoder), device="cpu").encode(list(TEXTS))
    got = embeddings(backend, encoder, TEXTS, shared_cache)
    assert got.shape == (len(TEXTS), 16)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def changed(folder: Path, copy: Path, file: str, **settings: Any) -> Path:
    """Return a copy of a checkpoint with other settings in one of its JSON files."""
    shutil.copytree(folder, copy)
    path = copy / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return copy


def test_a_dense_module_for_another_number_of_values_is_refused(encoder: Path, tmp_path: Path) -> None:
    one = changed(encoder, tmp_path / "one", "1_Pooling/config.json", pooling_mode_max_tokens=False)
    with pytest.raises(Unavailable, match=r"2_Dense/model\.safetensors reads 128 values, but mean pooling and the"):
        check_output(one, EMBEDDING)
    check_output(encoder, EMBEDDING)
    check_output(one, Output("embedding", ("cls",), per_token=False))


def test_the_weights_of_a_dense_module_belong_to_the_identity(encoder: Path, tmp_path: Path) -> None:
    from fnmatch import fnmatch

    from safetensors.numpy import load_file, save_file

    folder = Path(shutil.copytree(encoder, tmp_path / "model"))
    assert identity_of(folder) == identity_of(encoder)
    file = folder / "2_Dense" / "model.safetensors"
    save_file({name: array + 1 for name, array in load_file(file).items()}, file)
    assert identity_of(folder) != identity_of(encoder)
    assert any(fnmatch("2_Dense/model.safetensors", pattern) for pattern in HUB_FILES)
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(Unavailable, match=r"model\.safetensors is a git-lfs pointer"):
        check_files(folder)


def test_a_dense_module_without_its_weight_is_refused(encoder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    folder = Path(shutil.copytree(encoder, tmp_path / "model"))
    save_file({"other": np.zeros((2, 2), np.float32)}, folder / "2_Dense" / "model.safetensors")
    with pytest.raises(Unavailable, match=r"2_Dense/model\.safetensors has no matrix linear\.weight"):
        check_output(folder, EMBEDDING)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"activation_function": "torch.nn.modules.activation.SiLU"}, "has the activation 'SiLU'; it must be one of"),
        ({"module_input_name": "token_embeddings"}, "reads token_embeddings; only Dense modules after the pooling"),
    ],
)
def test_other_dense_modules_are_unsupported(
    settings: dict[str, str], says: str, encoder: Path, tmp_path: Path
) -> None:
    folder = changed(encoder, tmp_path / "model", "2_Dense/config.json", **settings)
    with pytest.raises(Unsupported, match=rf"2_Dense/config\.json {says}"):
        check_output(folder, EMBEDDING)
