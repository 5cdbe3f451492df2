"""Facts about model families: compared with transformers, and enough for a family that the project does not have."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy_family
from conftest import OTHER_MODELS, ROOT, TINY_MODELS
from word_models import request

from backends.base import Unsupported
from backends.cache import ArtifactCache
from backends.int8_learning.fake_quantization import register_attention, round_encoder
from backends.model.checkpoint import Checkpoint, find_checkpoint, load_encoder
from backends.model.checkpoint_files import read_config
from backends.model.encoder_parts import encoder_parts
from backends.model.families import (
    FAMILIES,
    Family,
    layer_names_of,
    node_at,
    point_at,
    positions_of,
    setting_of,
    size_of,
)
from backends.model.layer_names import NODES, POINTS, WEIGHT_PRODUCTS, LayerNames, node_of, node_path
from backends.model.reference import ModelReference
from backends.model.weights import encoder_weights
from backends.onnx_ import onnx_files
from backends.onnx_.calibration import CalibrationInputs
from backends.onnx_.marked_outputs import MARKABLE_POINTS, marked_points
from backends.onnx_.onnx_source import export_onnx
from backends.onnx_.quantize import PLACEMENTS, quantize_onnx
from backends.onnx_.ranges import activation_ranges
from backends.onnx_.reference_check import check_encoder, check_export
from backends.options import Switch
from backends.quantization_options import Activation, Placement, QuantizationOptions
from backends.torch_.marked_modules import MarkedEncoder
from backends.torch_.packed_encoder import PackedModel, encode
from suites.schema.refusals import Refused

Tiny = Callable[[str], tuple[Path, str]]
Toy = tuple[Path, str, ArtifactCache]

FAMILY_NAMES = [*TINY_MODELS, *OTHER_MODELS]


def checkpoint(cache: ArtifactCache, **architecture: Any) -> Checkpoint:
    return find_checkpoint(ModelReference("random", architecture=architecture), cache)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_usable_positions_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    from transformers import AutoModel

    sizes = {**{**TINY_MODELS, **OTHER_MODELS}[family], "vocab_size": 60, "max_position_embeddings": 20}
    folder = checkpoint(ArtifactCache(tmp_path), **sizes).folder
    usable = positions_of(read_config(folder))
    assert usable == (18 if family in ("roberta", "xlm-roberta", "camembert", "mpnet") else 20)
    ids = torch.full((1, usable + 1), 7)
    model = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        model(input_ids=ids[:, :-1])
        if FAMILIES[family].attention in ("absolute", "bias"):  # other families have no table of positions
            with pytest.raises((IndexError, RuntimeError)):
                model(input_ids=ids)
    # All positions are also usable in the project's encoder and in its export.
    for check in (check_encoder, check_export):
        assert check(folder, family, usable, ArtifactCache(tmp_path))["longest"] == usable


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_random_weights_without_a_number_of_positions_have_the_default_of_transformers(
    family: str, tmp_path: Path
) -> None:
    from transformers import AutoConfig

    rows = AutoConfig.for_model(family).max_position_embeddings
    usable = rows - (2 if family in ("roberta", "xlm-roberta", "camembert", "mpnet") else 0)
    overrides = (
        "weights=random",
        f"model.architecture={{model_type: {family}, hidden_size: 64}}",
        "model.positions=9000",
    )
    request(tmp_path, *overrides, f"sequence=[{usable}]")
    for sequence in (usable + 1, rows + 1, 9000):
        with pytest.raises(Refused, match=f"sequence={sequence} is beyond the {usable} positions"):
            request(tmp_path, *overrides, f"sequence=[{sequence}]")


@pytest.mark.parametrize("family", TINY_MODELS)
def test_every_name_is_a_node_of_the_exported_graph(family: str, tiny: Tiny, shared_cache: ArtifactCache) -> None:
    folder, identity = tiny(family)
    graph = onnx_files.graph_of(export_onnx(folder, identity, shared_cache).path)
    nodes = [place for node in graph.node if (place := node_at(node.name))]
    assert sorted(nodes) == sorted((layer, name) for layer in (0, 1) for name in NODES)
    points = {point_at(node.name) for node in graph.node} - {"", "projection"}
    assert points == {"embeddings", *(f"{layer}/{point}" for layer in (0, 1) for point in POINTS[1:])}
    # A name selects the product with the weight of its module.
    state = load_encoder(folder).state_dict()
    constants = onnx_files.load(export_onnx(folder, identity, shared_cache).path).graph.initializer
    from onnx import numpy_helper

    values = {constant.name: numpy_helper.to_array(constant) for constant in constants}
    for node in graph.node:
        layer, name = node_at(node.name) or (-1, "")
        if name in WEIGHT_PRODUCTS:
            module = layer_names_of(read_config(folder)).module(name, layer)
            np.testing.assert_array_equal(values[node.input[1]].T, state[f"{module}.weight"])


def test_names_of_a_node_depend_on_the_modules_that_contain_it() -> None:
    names = LayerNames()
    assert names.nodes["attention_residual"] == "attention/output/Add"
    assert names.nodes["ffn_residual"] == "output/Add"
    together = LayerNames(attention_norm="norm1", ffn_norm="norm2")
    assert (together.nodes["attention_residual"], together.nodes["ffn_residual"]) == ("Add", "Add_1")
    assert names.node_at("/encoder/encoder/layer.11/output/dense/MatMul") == (11, "ffn_down")
    assert names.node_at("/encoder/encoder/layer.11/attention/output/dense/MatMul") == (11, "attention_output")
    assert names.node_at("/encoder/encoder/layer.1/attention/self/qkv/MatMul") == (1, "query")
    assert names.node_at("/encoder/encoder/layer.1/attention/self/query/Add") is None
    assert names.node_at("/my_encoder/layer.1/output/dense/MatMul") is None
    assert names.point_at("encoder/layer.3/output/LayerNorm/LayerNormalization") == "3/output"
    assert names.point_at("/encoder/embeddings/LayerNorm/LayerNormalization") == "embeddings"
    assert names.point_at("/encoder/pooler/Add") == ""
    assert node_path("encoder.layer.0.output.dense") == "encoder/layer.0/output/dense"
    assert node_of("", "Add") == "Add"


def test_layers_that_share_weights_have_no_names() -> None:
    with pytest.raises(Unsupported, match="share weights"):
        layer_names_of({"model_type": "albert"})


def test_settings_are_read_under_the_names_of_the_family() -> None:
    assert setting_of({"model_type": "distilbert", "dim": 5}, "hidden_size") == 5
    assert setting_of({"model_type": "bert", "hidden_size": 6, "dim": 5}, "hidden_size") == 6
    assert setting_of({"model_type": "bert", "dim": 5}, "hidden_size") is None
    assert size_of({"model_type": "distilbert", "dim": 5}, "hidden_size") == 5
    for dim in ("5", 5.0, None):
        with pytest.raises(ValueError, match="hidden_size must be of type int"):
            size_of({"model_type": "distilbert", "dim": dim}, "hidden_size")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Toy:
    """Add the toy family: an entry of FAMILIES, and nothing else in the project. Return a random checkpoint of it."""
    facts = toy_family.register()
    entry = Family(**facts.family, layer_names=LayerNames(**facts.names))
    monkeypatch.setitem(FAMILIES, "toy", entry)  # type: ignore[arg-type]  # a Mapping for readers
    cache = ArtifactCache(tmp_path)
    made = checkpoint(cache, model_type="toy")
    return made.folder, made.identity, cache


def test_a_new_family_needs_only_an_entry_for_encoder_export_and_positions(toy: Toy) -> None:
    folder, identity, cache = toy
    assert positions_of(read_config(folder)) == 20
    for check in (check_encoder, check_export):
        found = check(folder, identity, 20, cache)
        assert found["difference"] < 2e-5
        assert (found["lengths"], found["longest"]) == (20, 20)


def test_a_new_family_needs_only_an_entry_for_plain_weights(toy: Toy) -> None:
    folder, identity, cache = toy
    artifact = encoder_weights(folder, identity, cache)
    assert artifact.notes == {"layers": 2, "heads": 2, "head_size": 16, "hidden": 32, "epsilon": 1e-12}
    weights = {name: torch.from_numpy(array) for name, array in np.load(artifact.path).items()}
    ids = torch.arange(3, 9, dtype=torch.int32)
    inputs = {"ids": ids, "segments": ids * 0, "positions": torch.arange(6), "starts": torch.tensor([0, 6])}
    with torch.inference_mode():
        expected = load_encoder(folder)(input_ids=ids[None]).last_hidden_state[0]
        torch.testing.assert_close(encode(PackedModel(weights, 1e-12), inputs, 6), expected, atol=2e-6, rtol=0)


def test_a_new_family_needs_only_an_entry_for_quantization(toy: Toy) -> None:
    folder, identity, cache = toy
    onnx = export_onnx(folder, identity, cache)
    batches = [{"input_ids": np.arange(16, dtype=np.int32).reshape(2, 8), "attention_mask": np.ones((2, 8), np.int32)}]
    options = QuantizationOptions(placement=Placement.all, activation=Activation.int8, reduce_range=Switch.off)
    quantized = quantize_onnx(onnx, "int8", options, CalibrationInputs(lambda: batches), cache)
    assert quantized.notes["quantized"] == 2 * len(NODES)
    assert (
        quantized.notes["weight_products"] == quantized.notes["weight_products_quantized"] == 2 * len(WEIGHT_PRODUCTS)
    )
    options = QuantizationOptions(leave_out=["*blocks.1/up/MatMul"])
    ranges = activation_ranges(onnx, options, CalibrationInputs(lambda: batches), cache)
    assert ranges.notes["left"] == ["1/up"]
    assert f'"1/{POINTS[-1]}"' in ranges.path.read_text()
    register_attention()
    rounded = round_encoder(load_encoder(folder, "rounded"), PLACEMENTS["all"])
    names = {node.name for node in onnx_files.graph_of(onnx.path).node}
    assert {place.split(" ")[0] for place in rounded} <= names
    assert len(rounded) == 2 * 9


def test_a_new_family_needs_only_an_entry_for_parts_and_marked_layers(toy: Toy) -> None:
    folder, identity, cache = toy
    layer_parts = ("attn/k", "attn/q", "attn/v", "down", "norm1", "norm2", "out", "up")
    assert encoder_parts(folder) == ["*/words/*", *(f"*/blocks.{n}/{part}/*" for n in (0, 1) for part in layer_parts)]
    points = marked_points(export_onnx(folder, identity, cache))
    assert points == ["embeddings", *(f"{layer}/{point}" for layer in (0, 1) for point in MARKABLE_POINTS[1:])]
    marked = MarkedEncoder(load_encoder(folder), points)
    outputs = marked(input_ids=torch.ones(2, 5, dtype=torch.int32), attention_mask=None).last_hidden_state
    assert outputs.shape == (2, 5, 32 + 2 * (4 * 32 + 64))


def strings(path: Path) -> Iterator[str]:
    """Yield the strings of a module, except those that stand alone, such as docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.value


def test_no_other_module_names_a_family_or_its_modules() -> None:
    paths = {
        path
        for family in FAMILIES.values()
        if family.layer_names
        for path in vars(family.layer_names).values()
        if isinstance(path, str) and not path.isalpha()
    }
    copies = []
    for path in [*ROOT.glob("backends/**/*.py"), *ROOT.glob("suites/**/*.py")]:
        if path.name in ("families.py", "layer_names.py"):
            continue
        for text in strings(path):
            if text in FAMILIES or any(form in text for name in paths for form in (name, node_path(name))):
                copies.append(f"{path.relative_to(ROOT)}: {text[:60]}")
    assert not copies
