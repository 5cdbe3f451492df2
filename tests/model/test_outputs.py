"""Outputs after the encoder: every backend gives those of transformers and sentence-transformers."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import OTHER_MODELS, TINY_MODELS

from backends.base import Array, BuildSpec, Device, Shape, Source, Unavailable, Unsupported
from backends.cache import ArtifactCache
from backends.model.checkpoint import find_checkpoint
from backends.model.checkpoint_files import WEIGHTS
from backends.model.heads import check_output, head_of
from backends.model.identity import identity_of
from backends.model.reference import ModelReference
from backends.model_output import POOLINGS, Output, resolve_output
from backends.onnx_.onnx_source import prepare_source
from backends.quantization_options import QuantizationOptions
from backends.registry import describe, load_backend

MODELS = {**TINY_MODELS, **OTHER_MODELS}
HEADS = {
    "classification": ("AutoModelForSequenceClassification", "logits"),
    "score": ("AutoModelForSequenceClassification", "score"),
    "answers": ("AutoModelForQuestionAnswering", "spans"),
    "tokens": ("AutoModelForTokenClassification", "logits"),
}
LABELS = {"classification": 3, "score": 1, "answers": 2, "tokens": 5}
LENGTHS = (9, 4, 1, 7)
"""Tokens of the sequences of a batch."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Return the folder of a random two-layer checkpoint of a family with a head."""
    made: dict[tuple[str, str], Path] = {}

    def make(family: str, head: str) -> Path:
        import torch
        import transformers

        if (family, head) in made:
            return made[family, head]
        folder = tmp_path_factory.mktemp(f"{family}-{head}")
        architecture = dict(MODELS[family])
        config = transformers.AutoConfig.for_model(
            architecture.pop("model_type"), **architecture, num_labels=LABELS[head]
        )
        torch.manual_seed(0)
        model = getattr(transformers, HEADS[head][0]).from_config(config)
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.05)
        model.save_pretrained(folder)
        return made.setdefault((family, head), folder)

    return make


def batch(folder: Path) -> dict[str, Array]:
    config = json.loads((folder / "config.json").read_text())
    generator, mask = np.random.default_rng(0), (np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]).astype(np.int32)
    ids = generator.integers(5, 90, mask.shape).astype(np.int32)
    pad = config.get("pad_token_id") or 0
    feeds = {"input_ids": np.where(mask > 0, ids, pad).astype(np.int32), "attention_mask": mask}
    from backends.model.families import input_names_of

    return {**feeds, "token_type_ids": mask * 0} if "token_type_ids" in input_names_of(config) else feeds


def outputs_of(
    backend: str,
    folder: Path,
    output: Output,
    feeds: Mapping[str, Array],
    cache: ArtifactCache,
    precision: str = "fp32",
) -> Array:
    """Build a model and run one batch."""
    loaded, options = load_backend(backend), describe(backend).options()
    shapes = (Shape(*feeds["input_ids"].shape),)
    spec = BuildSpec("fp32", Device(), shapes, False, cache.root, options, output=output, threads=1)
    loaded.check(spec)
    source, identity = Source(folder, ""), identity_of(folder)
    if describe(backend).source.name == "onnx":
        form = loaded.source_form(spec)
        source = prepare_source(folder, identity, form, QuantizationOptions(), [], 0, cache, output=output)
    with loaded.open(spec, loaded.build(spec, source)) as session:
        session.load(feeds)
        session.step()
        session.wait()
        return np.array(session.fetch(), np.float32)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", list(MODELS))
def test_heads_give_the_outputs_of_transformers(
    family: str, head: str, checkpoint: Callable[[str, str], Path], shared_cache: ArtifactCache
) -> None:
    import torch
    import transformers
    from transformers import CONFIG_MAPPING

    kind, output = HEADS[head]
    if CONFIG_MAPPING[family] not in getattr(transformers, kind)._model_mapping:
        pytest.skip(f"transformers has no {kind} of {family}")
    folder = checkpoint(family, head)
    feeds = batch(folder)
    model = getattr(transformers, kind).from_pretrained(folder, attn_implementation="eager").eval()
    with torch.inference_mode():
        result = model(**{name: torch.from_numpy(array).long() for name, array in feeds.items()})
    if head == "answers":
        expected = torch.stack([result.start_logits, result.end_logits], -1).numpy()
    else:
        expected = result.logits.numpy()
    requested = resolve_output(Output("auto"), json.loads((folder / "config.json").read_text()), folder)
    assert requested.kind == output
    assert requested.per_token == (expected.ndim == 3)
    valid = feeds["attention_mask"].astype(bool) if requested.per_token else slice(None)
    paths = ("torch_eager", "ort", "torch_packed") if family in TINY_MODELS else ("torch_eager", "ort")
    for backend in paths:
        got = outputs_of(backend, folder, requested, feeds, shared_cache)
        assert got.shape == expected.shape
        np.testing.assert_allclose(got[valid], expected[valid], atol=1e-5, err_msg=backend)


def pooled(mode: str, hidden: Array, mask: Array) -> Array:
    """Pool [batch, sequence, hidden] sequence by sequence."""
    rows = []
    for values, length in zip(hidden, mask.sum(1), strict=True):
        x = values[:length].astype(np.float64)
        weights = np.arange(1, length + 1)[:, None]
        rows.append({
            "mean": x.mean(0), "cls": x[0], "max": x.max(0), "lasttoken": x[-1],
            "mean_sqrt_len_tokens": x.sum(0) / np.sqrt(length), "weightedmean": (x * weights).sum(0) / weights.sum(),
        }[mode])  # fmt: skip
    return np.stack(rows)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("backend", ["torch_eager", "ort", "torch_packed"])
def test_poolings_are_those_of_a_loop_over_sequences(
    backend: str, padded: bool, tiny: Callable[[str], tuple[Path, str]], shared_cache: ArtifactCache
) -> None:
    folder, _ = tiny("bert")
    feeds = batch(folder)
    if not padded:
        feeds = {name: np.ascontiguousarray(array[:, :1].repeat(5, 1)) for name, array in feeds.items()}
        feeds["input_ids"] = feeds["input_ids"] + np.arange(5, dtype=np.int32)
    hidden = outputs_of("torch_eager", folder, Output(), feeds, shared_cache)
    for modes in (*((mode,) for mode in POOLINGS), ("cls", "mean")):
        expected = np.concatenate([pooled(mode, hidden, feeds["attention_mask"]) for mode in modes], -1)
        for normalize in (True, False):
            output = Output("embedding", modes, normalize, per_token=False)
            got = outputs_of(backend, folder, output, feeds, shared_cache)
            wanted = expected / np.linalg.norm(expected, axis=-1, keepdims=True) if normalize else expected
            np.testing.assert_allclose(got, wanted, atol=1e-5, err_msg=f"{modes} {normalize}")


def test_rounded_packed_tokens_do_not_change_an_embedding(
    tiny: Callable[[str], tuple[Path, str]], shared_cache: ArtifactCache
) -> None:
    folder, identity = tiny("bert")
    feeds = batch(folder)
    output = Output("embedding", ("mean",), True, per_token=False)
    expected = outputs_of("torch_eager", folder, output, feeds, shared_cache)
    backend = load_backend("torch_packed")
    options = describe("torch_packed").options(pad_to_multiple_of=8)  # type: ignore[call-arg]
    spec = BuildSpec("fp32", Device(), (Shape(4, 9),), False, shared_cache.root, options, output=output)
    source = prepare_source(
        folder, identity, backend.source_form(spec), QuantizationOptions(), [], 0, shared_cache, output=output
    )
    with backend.open(spec, backend.build(spec, source)) as session:
        session.load(feeds)
        session.step()
        np.testing.assert_allclose(session.fetch(), expected, atol=1e-5)


def test_hidden_states_of_packed_tokens_are_zero_at_padding(
    tiny: Callable[[str], tuple[Path, str]], shared_cache: ArtifactCache
) -> None:
    folder, _ = tiny("bert")
    feeds = batch(folder)
    expected = outputs_of("torch_eager", folder, Output(), feeds, shared_cache)
    got = outputs_of("torch_packed", folder, Output(), feeds, shared_cache)
    tokens = feeds["attention_mask"].astype(bool)
    np.testing.assert_allclose(got[tokens], expected[tokens], atol=1e-5)
    assert not got[~tokens].any()


def test_a_checkpoint_without_the_head_is_unsupported(tiny: Callable[[str], tuple[Path, str]]) -> None:
    folder, _ = tiny("bert")
    with pytest.raises(Unsupported, match=r"no classification head: it lacks classifier\.weight"):
        head_of(folder, Output("logits", per_token=False))
    with pytest.raises(Unsupported, match="no question answering head"):
        check_output(folder, Output("spans"))
    check_output(folder, Output("embedding", per_token=False))


@pytest.mark.parametrize(
    ("head", "kind", "remedy"),
    [
        ("tokens", "score", "output=logits or output=embedding or output=hidden"),
        ("tokens", "spans", "output=logits or output=embedding or output=hidden"),
        ("answers", "logits", "output=spans or output=embedding or output=hidden"),
    ],
)
def test_the_remedy_for_a_missing_head_names_the_output_of_the_checkpoint(
    head: str, kind: str, remedy: str, checkpoint: Callable[[str, str], Path]
) -> None:
    with pytest.raises(Unsupported, match=f"give a checkpoint with this head, or use {remedy}$"):
        check_output(checkpoint("bert", head), Output(kind, per_token=False))


def test_a_head_with_another_number_of_labels_is_unsupported(
    checkpoint: Callable[[str, str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("bert", "classification"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(place): str(place) for place in range(4)}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(Unsupported, match=r"the checkpoint's head has 3 outputs, but config\.json has 4 labels"):
        head_of(folder, Output("logits", per_token=False))
    config["id2label"] = {"7": "c", "1": "a", "3": "b"}
    (folder / "config.json").write_text(json.dumps(config))
    check_output(folder, Output("logits", per_token=False))
    config["id2label"] = {"0": "a", "2": "b"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(Unsupported, match=r"3 outputs, but config\.json has 2 labels; correct id2label"):
        check_output(folder, Output("logits", per_token=False))


def test_a_head_for_spans_has_two_outputs(checkpoint: Callable[[str, str], Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(checkpoint("bert", "answers"), folder)
    weights = load_file(folder / WEIGHTS)
    weights["qa_outputs.weight"] = weights["qa_outputs.weight"].repeat(2, 1)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(Unsupported, match="this has 4: give another checkpoint, or use output=hidden or output=emb"):
        check_output(folder, Output("spans"))


@pytest.mark.parametrize(
    ("head", "kind", "count", "says"),
    [
        ("answers", "spans", 3, "has 2 outputs, but config.json has 3 labels; correct id2label"),
        ("score", "score", 2, "has 1 output, but config.json has 2 labels; correct id2label"),
        ("tokens", "logits", 1, "has 5 outputs, but config.json has 1 label; correct id2label"),
    ],
)
def test_each_kind_of_head_has_as_many_outputs_as_labels(
    head: str, kind: str, count: int, says: str, checkpoint: Callable[[str, str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("bert", head), folder)
    config = json.loads((folder / "config.json").read_text())
    labels = {str(place): str(place) for place in range(count)}
    (folder / "config.json").write_text(json.dumps({**config, "id2label": labels}))
    with pytest.raises(Unsupported, match=re.escape(says)):
        check_output(folder, Output(kind, per_token=head == "tokens"))


@pytest.mark.parametrize("pooling", ["bos", "mean", "late"])
def test_eurobert_pools_as_its_config_says(
    pooling: str, checkpoint: Callable[[str, str], Path], shared_cache: ArtifactCache, tmp_path: Path
) -> None:
    folder = pooled_classifier(checkpoint("eurobert", "classification"), tmp_path / "model", pooling)
    import torch
    from transformers import AutoModelForSequenceClassification

    feeds = batch(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.inference_mode():
        expected = model(**{name: torch.from_numpy(array).long() for name, array in feeds.items()}).logits.numpy()
    for backend in ("torch_eager", "ort", "openvino"):
        got = outputs_of(backend, folder, Output("logits", per_token=False), feeds, shared_cache)
        np.testing.assert_allclose(got, expected, atol=1e-5, err_msg=backend)


def test_a_pooling_that_is_not_known_is_unsupported(checkpoint: Callable[[str, str], Path], tmp_path: Path) -> None:
    folder = pooled_classifier(checkpoint("eurobert", "classification"), tmp_path / "model", "first")
    with pytest.raises(Unsupported, match=r"config\.json has classifier_pooling 'first', which is not supported"):
        check_output(folder, Output("logits", per_token=False))


def pooled_classifier(folder: Path, copy: Path, pooling: str) -> Path:
    """Return a copy of a checkpoint with another pooling of its classifier."""
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "classifier_pooling": pooling}))
    return copy


def test_a_score_needs_one_output(checkpoint: Callable[[str, str], Path]) -> None:
    with pytest.raises(Unsupported, match=r"output=score needs a head with one output; this one has 3: use output=log"):
        head_of(checkpoint("bert", "classification"), Output("score", per_token=False))


@pytest.mark.parametrize(
    ("config", "files", "kind"),
    [
        ({}, (), "hidden"),
        ({}, ("modules.json",), "embedding"),
        ({}, ("1_Pooling/config.json",), "embedding"),
        ({"architectures": ["BertModel"]}, ("modules.json",), "embedding"),
        ({"architectures": ["BertForSequenceClassification"]}, (), "logits"),
        ({"architectures": ["BertForSequenceClassification"], "num_labels": 1}, (), "score"),
        ({"architectures": ["BertForSequenceClassification"], "id2label": {"0": "x"}}, ("modules.json",), "score"),
        ({"architectures": ["BertForTokenClassification"]}, (), "logits"),
        ({"architectures": ["BertForTokenClassification"]}, ("modules.json", "1_Pooling/config.json"), "embedding"),
        ({"architectures": ["BertForQuestionAnswering"]}, (), "spans"),
        ({"architectures": ["BertForMaskedLM"]}, (), "hidden"),
    ],
)
def test_the_files_of_a_checkpoint_say_what_it_is_for(
    config: dict[str, Any], files: tuple[str, ...], kind: str, tmp_path: Path
) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("{}")
    assert resolve_output(Output("auto"), config, tmp_path).kind == kind
    assert resolve_output(Output("embedding"), config, tmp_path) == Output("embedding", per_token=False)


def test_random_weights_can_have_a_head(shared_cache: ArtifactCache) -> None:
    architecture = {**MODELS["bert"], "architectures": ["BertForSequenceClassification"], "num_labels": 1}
    folder = find_checkpoint(ModelReference("random", architecture=architecture), shared_cache).folder
    output = resolve_output(Output("auto"), architecture)
    assert output.kind == "score"
    scores = outputs_of("torch_eager", folder, output, batch(folder), shared_cache)
    assert scores.shape == (len(LENGTHS), 1)
    assert len(set(scores.ravel().tolist())) == len(LENGTHS)


def test_random_weights_without_a_supported_head_are_unavailable(tmp_path: Path) -> None:
    architecture = {**MODELS["bert"], "architectures": ["BertForMultipleChoice"]}
    with pytest.raises(Unavailable, match="random weights can have the heads ForSequenceClassification, ForToken"):
        find_checkpoint(ModelReference("random", architecture=architecture), ArtifactCache(tmp_path))
