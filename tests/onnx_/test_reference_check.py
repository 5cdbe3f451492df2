"""The project's encoder and its export are compared with transformers, and a fault is reported for the one that has
it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import OTHER_MODELS, TINY_MODELS
from safetensors.torch import load_file, save_file
from transformers import AttentionInterface
from word_models import request, word_model

from backends import free_memory
from backends.base import Array, Feeds, SourceForm, Unsupported
from backends.cache import ArtifactCache
from backends.inputs.calibration_sequences import calibration_batches
from backends.model import attention
from backends.model.weights import encoder_weights
from backends.onnx_ import compared_lengths, export_graph, reference_check
from backends.onnx_.compared_lengths import checked_lengths, longer_lengths
from backends.onnx_.reference_check import (
    check_encoder,
    check_export,
    padded_batches,
)
from suites.running.job import Exported
from suites.running.stages import export_job
from suites.schema.refusals import Refused
from suites.worker import export as export_stage

Tiny = Callable[[str], tuple[Path, str]]


@pytest.mark.parametrize("family", [*TINY_MODELS, *OTHER_MODELS])
def test_every_family_equals_transformers_at_every_length(family: str, tiny: Tiny, shared_cache: ArtifactCache) -> None:
    folder, identity = tiny(family)
    for check in (check_encoder, check_export):
        differences = check(folder, identity, 48, shared_cache)
        assert differences["difference"] < 2e-5
        assert (differences["lengths"], differences["longest"]) == (48, 48)


@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet", "albert"])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_read_exactly(family: str, kind: torch.dtype, tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = word_model(tmp_path / "model", family)
    AutoModel.from_pretrained(folder, dtype=kind).save_pretrained(folder)
    assert check_encoder(folder, "", 20, ArtifactCache(tmp_path))["difference"] < 2e-5


def test_one_token_type_is_exported(tmp_path: Path, shared_cache: ArtifactCache) -> None:
    folder = word_model(tmp_path / "model", type_vocab_size=1)
    assert check_export(folder, "one type", 16, shared_cache)["difference"] < 2e-5


def test_several_token_types_are_used_in_every_family(tmp_path: Path, shared_cache: ArtifactCache) -> None:
    folder = word_model(tmp_path / "model", "roberta", type_vocab_size=2)
    for check in (check_encoder, check_export):
        assert check(folder, "two types", 16, shared_cache)["difference"] < 2e-5


def wrong_mask(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **_: Any
) -> tuple[torch.Tensor, None]:
    """Attend to padding too."""
    return torch.nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).contiguous(), None


def near_window(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **_: Any
) -> tuple[torch.Tensor, None]:
    """Attend only to the 40 nearest tokens, which is correct for all short sequences."""
    places = torch.arange(query.shape[2])
    near = (places[:, None] - places[None, :]).abs() <= 20
    mask = near[None, None] if attention_mask is None else attention_mask & near
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2).contiguous(), None


@pytest.mark.parametrize("fault", [wrong_mask, near_window])
def test_a_wrong_mask_in_the_projects_encoder_is_found(
    fault: Any, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, identity = tiny("bert")
    monkeypatch.setattr(attention, "fused", fault)
    try:
        with pytest.raises(ArithmeticError, match=r"own FP32 encoder differs from transformers by .* of 64 tokens"):
            check_encoder(folder, identity, 64, ArtifactCache(tmp_path))
        assert check_export(folder, identity, 64, ArtifactCache(tmp_path))["difference"] < 2e-5
    finally:
        monkeypatch.undo()
        AttentionInterface.register("suites_fused", attention.fused)
    # A failed check is not cached.
    assert check_encoder(folder, identity, 64, ArtifactCache(tmp_path))["difference"] < 2e-5


def test_transformers_runs_once_for_the_encoder_and_its_export(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_check, "_kept", {})
    longest: list[int] = []
    load = reference_check._transformers

    def counted(folder: Path) -> reference_check.Run:
        run = load(folder)
        longest.append(0)

        def observed(feeds: Feeds) -> Array:
            longest[-1] = max(longest[-1], feeds["attention_mask"].shape[1])
            return run(feeds)

        return observed

    monkeypatch.setattr(reference_check, "_transformers", counted)
    folder, identity = tiny("bert")
    check_encoder(folder, identity, 32, ArtifactCache(tmp_path))
    assert longest == [32]
    check_export(folder, identity, 32, ArtifactCache(tmp_path))
    assert longest == [32, export_graph.CHECKED_TOKENS]  # the export itself runs a short comparison
    check_encoder(folder, identity, 16, ArtifactCache(tmp_path))
    assert longest[2:] == [16]
    check_encoder(folder, "another checkpoint", 16, ArtifactCache(tmp_path))
    assert longest[2:] == [16] * 2
    monkeypatch.setattr(reference_check, "KEPT_TOKENS", 0)
    for cache in (tmp_path / "a", tmp_path / "b"):
        check_encoder(folder, "too many tokens to keep", 16, ArtifactCache(cache))
    assert longest[2:] == [16] * 4


def test_a_wrong_mask_in_the_export_is_found(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, identity = tiny("bert")
    monkeypatch.setattr(export_graph, "MASK_VALUE", -1.0)
    monkeypatch.setattr(export_graph, "compare_export", lambda *_: 0.0)  # so that only the cell's own check finds it
    with pytest.raises(ArithmeticError, match="exported ONNX file differs from transformers by"):
        check_export(folder, identity, 32, ArtifactCache(tmp_path))
    assert check_encoder(folder, identity, 32, ArtifactCache(tmp_path))["difference"] < 2e-5


def test_an_encoder_with_nan_outputs_is_found(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_check, "_own", lambda folder: lambda feeds: np.full((1, 1, 1), np.nan))
    folder, identity = tiny("bert")
    with pytest.raises(ArithmeticError, match="differs from transformers by inf"):
        check_encoder(folder, identity, 8, ArtifactCache(tmp_path))


def test_a_checkpoint_with_nan_outputs_is_not_reported_as_a_wrong_encoder(tmp_path: Path) -> None:
    folder = word_model(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.0.output.dense.bias"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ArithmeticError, match="transformers itself gives NaN or Inf for this checkpoint"):
        check_encoder(folder, "nan", 8, ArtifactCache(tmp_path))


def test_lengths_are_all_or_evenly_spaced_with_both_ends() -> None:
    assert checked_lengths(16, 1000) == list(range(1, 17))
    many = checked_lengths(512, 1000)
    assert (many[0], many[-1], len(many)) == (1, 512, 64)
    few = checked_lengths(512, 10**9)
    assert (few[0], few[-1], len(few)) == (1, 512, 8)


def test_longer_lengths_are_as_many_as_possible() -> None:
    assert longer_lengths(2048, 1e18) == []
    assert longer_lengths(8192, 2 * 8192**2) == [4096, 8192]
    assert longer_lengths(8192, 8192**2) == [8192]
    assert longer_lengths(8192, 7000**2) == [6144]
    assert longer_lengths(8192, 4095**2) == []
    assert longer_lengths(8192, -1) == []


@pytest.mark.parametrize("family", ["bert", "modernbert", "deberta-v2"])
def test_the_longest_sequence_of_a_cell_is_compared(
    family: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, identity = tiny(family)
    compared: list[list[int]] = []

    def recorded(lengths: list[int], *arguments: Any) -> Any:
        compared.append(lengths)
        return padded_batches(lengths, *arguments)

    monkeypatch.setattr(reference_check, "padded_batches", recorded)
    monkeypatch.setattr(compared_lengths, "MANY_LENGTHS_TO", 16)
    for check in (check_encoder, check_export):
        result = check(folder, identity, 80, ArtifactCache(tmp_path))
        assert compared[-1] == [40, 80]
        assert (result["lengths"], result["longest"]) == (18, 80)
        assert "limit" not in result
        assert result["difference"] < 2e-5
    for limit, name, value in (("memory", "free_memory", lambda: 1), ("time", "SCORES_PER_CORE", 0)):
        with monkeypatch.context() as patch:
            patch.setattr(compared_lengths, name, value)
            limited = check_encoder(folder, identity, 80, ArtifactCache(tmp_path / limit))
        assert (compared[-1], limited["longest"], limited["limit"]) == (list(range(1, 17)), 16, limit)
    assert caplog.messages == [
        f"compared with transformers up to 16 tokens, because attention of 80 tokens needs more {limit}"
        for limit in ("memory", "time")
    ]


def test_a_fault_beyond_many_lengths_is_found(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compared_lengths, "MANY_LENGTHS_TO", 16)
    monkeypatch.setattr(attention, "fused", near_window)
    folder, identity = tiny("bert")
    try:
        assert check_encoder(folder, identity, 16, ArtifactCache(tmp_path))["difference"] < 2e-5
        with pytest.raises(ArithmeticError, match=r"own FP32 encoder differs from transformers by .* of 64 tokens"):
            check_encoder(folder, identity, 64, ArtifactCache(tmp_path))
    finally:
        monkeypatch.undo()
        AttentionInterface.register("suites_fused", attention.fused)


def test_free_memory_is_that_of_the_cgroup_if_it_is_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (free := free_memory.free_memory()) is None or free > 0
    monkeypatch.setattr(free_memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(free_memory, "CGROUP", tmp_path)
    assert free_memory.free_memory() is None
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:    4000 kB\n")
    assert free_memory.free_memory() == 4000 * 1024
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory.free_memory() == 4000 * 1024
    (tmp_path / "memory.max").write_text("5000\n")
    assert free_memory.free_memory() == 4000


def test_batches_mix_short_and_long_sequences_and_cover_all_lengths() -> None:
    config = {"model_type": "bert", "vocab_size": 50, "pad_token_id": 0}
    batches = list(padded_batches(checked_lengths(40, 1), config, ("input_ids", "attention_mask", "token_type_ids")))
    lengths = [int(length) for feeds in batches for length in feeds["attention_mask"].sum(1)]
    assert sorted(lengths) == list(range(1, 41))
    for feeds in batches:
        assert feeds["attention_mask"].sum(1).min() <= 5
        assert feeds["attention_mask"].sum(1).max() >= 36
        assert (feeds["input_ids"][feeds["attention_mask"] > 0] > 0).all()
        assert feeds["token_type_ids"].max() == 1


def stage(tmp_path: Path, folder: Path, *overrides: str, form: SourceForm = SourceForm()) -> Exported:  # noqa: B008
    """Return the answer of the export stage of a cell."""
    made = request(tmp_path, f"model.path={folder}", "batch=[2]", "sequence=[16]", *overrides)
    return export_stage(export_job(made, form))


def test_the_export_stage_checks_its_artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = word_model(tmp_path / "model")
    assert set(stage(tmp_path, folder, "backend=torch_eager").checked) == {"encoder"}
    answer = stage(tmp_path, folder, "backend=ort")
    assert set(answer.checked) == {"encoder", "export"}
    assert answer.checked["encoder"]["longest"] == 16
    assert answer.origin == "path"
    # The check runs once per checkpoint: transformers does not run the second time.
    monkeypatch.setattr("backends.onnx_.reference_check._transformers", None)
    assert stage(tmp_path, folder, "backend=ort").checked == answer.checked


@pytest.mark.parametrize("family", OTHER_MODELS)
def test_a_feature_that_the_family_lacks_is_unsupported(
    family: str, tmp_path: Path, shared_cache: ArtifactCache
) -> None:
    folder = word_model(tmp_path / "model", family)
    for option in (
        "quantization.placement=ffn",
        "quantization.placement=all",
        "quantization.smooth=0.5",
        "quantization.shift=true",
        "quantization.method=search",
        "quantization.qat_steps=2",
    ):
        text = rf"^{option} is not supported for model type '{family}', because .*; use quantization.placement=gemm, "
        with pytest.raises(Unsupported, match=text):
            stage(tmp_path, folder, "backend=ort", "precision=int8", "quantization.activation=int8", option)
    with pytest.raises(Unsupported, match=f"plain weights .* not supported for model type '{family}'"):
        encoder_weights(folder, "", shared_cache)
    with pytest.raises(Unsupported, match=f"suite=layers is not supported for model type '{family}'"):
        stage(tmp_path, folder, "backend=ort", "suite=layers")


@pytest.mark.parametrize("family", OTHER_MODELS)
def test_int8_of_onnxruntime_needs_no_layer_names(family: str, tmp_path: Path) -> None:
    form = SourceForm(quantized="int8")
    folder = word_model(tmp_path / "model", family)
    onnx_file = stage(tmp_path, folder, "backend=ort", "precision=int8", form=form).source.onnx
    assert onnx_file is not None
    assert onnx_file.notes["weight_products_quantized"] == onnx_file.notes["weight_products"]


@pytest.mark.parametrize(("sequence", "longest", "different"), [(128, 63, True), (0, 16, False)])
def test_calibration_can_have_the_lengths_of_the_cell(
    sequence: int, longest: int, different: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []

    def recorded(*arguments: Any) -> list[dict[str, np.ndarray]]:
        batches = calibration_batches(*arguments)
        used.extend(int(n) for batch in batches for n in batch["attention_mask"].sum(1))
        return batches

    monkeypatch.setattr("backends.onnx_.onnx_source.calibration_batches", recorded)
    folder = word_model(tmp_path / "model")
    options = ("backend=ort", "precision=int8", f"quantization.sequence={sequence}", "quantization.samples=8")
    stage(tmp_path, folder, *options, form=SourceForm(quantized="int8"))
    assert len(used) == 8
    assert max(used) == longest
    assert (len(set(used)) > 1) == different


def test_calibration_sequences_beyond_the_model_are_refused(tmp_path: Path) -> None:
    folder = word_model(tmp_path / "model", max_position_embeddings=64)
    own = (f"model.path={folder}", "backend=ort", "precision=int8", "sequence=[32]")
    with pytest.raises(Refused, match=r"quantization\.sequence=65 is beyond the 64 positions of model; choose fewer"):
        request(tmp_path, *own, "quantization.sequence=65")
    for sequence in (0, 64, 128):  # 128 is the default, which ends at the last position
        cell = request(tmp_path, *own, f"quantization.sequence={sequence}").cell
        assert cell["options"]["quantization"]["sequence"] == sequence


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_decoder_is_unsupported(family: str, tmp_path: Path) -> None:
    folder = word_model(tmp_path / "model", family, is_decoder=True)
    for backend in ("torch_eager", "ort"):
        with pytest.raises(Unsupported, match="causal attention is not supported"):
            stage(tmp_path, folder, f"backend={backend}")


def test_a_wrong_checkpoint_is_refused_before_transformers_fails(tmp_path: Path) -> None:
    folder = word_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": config["vocab_size"] + 1}))
    with pytest.raises(Unsupported, match=r"the sizes in config\.json do not match the weights"):
        check_encoder(folder, "other sizes", 16, ArtifactCache(tmp_path))


def test_files_that_change_during_a_cell_are_detected(tmp_path: Path) -> None:
    folder = word_model(tmp_path / "model")
    made = request(tmp_path, f"model.path={folder}", "batch=[2]", "sequence=[16]")
    (folder / "vocab.txt").write_text("the\n")
    with pytest.raises(RuntimeError, match="files changed while the cell ran; run it again"):
        export_stage(export_job(made, SourceForm()))
