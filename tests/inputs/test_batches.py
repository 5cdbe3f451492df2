from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from omegaconf import OmegaConf

from backends.base import Artifact, Shape, Unavailable
from backends.cache import ArtifactCache
from backends.inputs.batches import InputSource, Tokens, draw_lengths, prepare_inputs, split
from backends.inputs.calibration_sequences import CalibrationSize, calibration_batches
from backends.inputs.lengths import Lengths
from backends.tensorrt_.profile_step import batch
from suites.running.exported_files import padded_tokens
from suites.schema.suite_config import LengthsConfig

TOKENS = Tokens("text", ((11, 12, 13), (21, 22), (31, 32, 33, 34, 35)), prefix=(1,), suffix=(2,), pad=0)
NAMES = ("input_ids", "attention_mask")


def test_text_without_a_tokenizer_is_refused_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", "vocab_size": 100}')
    with pytest.raises(Unavailable, match="use random"):
        Tokens.of(tmp_path, "text", ["a text"], seed=0)
    assert Tokens.of(tmp_path, "auto", ["a text"], seed=0).kind == "random"


def test_calibration_uses_all_texts(tiny: Callable[[str], tuple[Path, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokens, "of", lambda *_: TOKENS)
    first, second = calibration_batches(tiny("bert")[0], [], CalibrationSize(10, 6), 0)
    starts = [row[1] for batch in (first, second) for row in batch["input_ids"].tolist()]
    assert starts == [11, 21, 31, 11, 21, 31, 11, 21, 31, 11, 11, 21, 31, 11, 21, 31]
    assert first["input_ids"].shape == second["input_ids"].shape


def test_calibration_sequences_have_the_lengths_of_the_cell(
    tiny: Callable[[str], tuple[Path, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tokens, "of", lambda *_: TOKENS)
    folder = tiny("bert")[0]

    def lengths(chosen: Lengths | None, sequence: int) -> list[int]:
        batches = calibration_batches(folder, [], CalibrationSize(4, sequence, lengths=chosen), 0)
        return [int(n) for batch in batches for n in batch["attention_mask"].sum(1)][:4]

    assert lengths(None, 40) == [5, 9, 12, 15]  # 1 to 4 sentences
    assert lengths(Lengths("full"), 40) == [40, 40, 40, 40]
    assert lengths(Lengths("texts"), 6) == [5, 4, 6, 5]
    assert lengths(Lengths("file", values=(9,)), 40) == [9, 9, 9, 9]


@pytest.mark.parametrize(
    ("sequence", "positions", "shape"),
    [(512, 8192, (8, 512)), (600, 8192, (6, 600)), (8192, 8192, (1, 8192)), (8192, 512, (8, 512))],
)
def test_long_calibration_sequences_have_small_batches_and_end_at_the_last_position(
    sequence: int, positions: int, shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tokens, "of", lambda *_: TOKENS)
    config = {"model_type": "bert", "max_position_embeddings": positions}
    (tmp_path / "config.json").write_text(json.dumps(config))
    size = CalibrationSize(16, sequence, lengths=Lengths("full"))
    shapes = [batch["input_ids"].shape for batch in calibration_batches(tmp_path, [], size, 0)]
    assert shapes == [shape] * -(-16 // shape[0])


def test_a_row_is_running_text_between_special_tokens_padded_on_the_right() -> None:
    feeds = TOKENS.feeds([7, 2, 5], 8, NAMES)
    assert feeds["input_ids"].tolist() == [
        [1, 11, 12, 13, 21, 22, 2, 0],
        [1, 2, 0, 0, 0, 0, 0, 0],
        [1, 31, 32, 33, 2, 0, 0, 0],
    ]
    assert feeds["attention_mask"].sum(1).tolist() == [7, 2, 5]
    assert {array.dtype for array in feeds.values()} == {np.dtype(np.int32)}


@pytest.mark.parametrize(
    ("lengths", "drawn", "cut"),
    [
        (Lengths("full"), [6, 6, 6, 6], 0),
        (Lengths("texts"), [5, 4, 6, 5], 1),
        (Lengths("file", values=(9,)), [6, 6, 6, 6], 4),
        (Lengths("histogram", values=(3, 5), counts=(0, 7)), [5, 5, 5, 5], 0),
    ],
)
def test_lengths_follow_their_distribution_and_cut_texts_are_counted(
    lengths: Lengths, drawn: list[int], cut: int
) -> None:
    assert draw_lengths(lengths, Shape(4, 6), TOKENS, seed=0) == (drawn, cut)


def test_stsb_lengths_follow_their_histogram() -> None:
    chosen = OmegaConf.to_container(OmegaConf.load(ROOT / "suites" / "conf" / "lengths" / "stsb.yaml"))
    assert isinstance(chosen, dict)
    values, counts = np.array(chosen["values"]), np.array(chosen["counts"])
    assert counts.sum() == 5758
    lengths = Lengths("histogram", values=tuple(chosen["values"]), counts=tuple(chosen["counts"]))
    drawn, cut = draw_lengths(lengths, Shape(4000, 128), TOKENS, seed=0)
    assert cut == 0
    assert np.mean(drawn) == pytest.approx((values * counts).sum() / counts.sum(), rel=0.02)


def test_squad_like_lengths_have_the_right_mean_and_are_cut_at_the_sequence_length() -> None:
    chosen = OmegaConf.merge(
        OmegaConf.structured(LengthsConfig), OmegaConf.load(ROOT / "suites" / "conf" / "lengths" / "squad_like.yaml")
    )
    lengths = Lengths("lognormal", low=chosen["low"], mean=chosen["mean"], sigma=chosen["sigma"])
    drawn, cut = draw_lengths(lengths, Shape(4000, 384), TOKENS, seed=0)
    assert np.mean(drawn) == pytest.approx(chosen["mean"], rel=0.05)
    assert min(drawn) >= chosen["low"]
    assert max(drawn) == 384
    assert 0 < cut < 400


@pytest.mark.parametrize(
    ("drawn", "passes", "multiple", "expected"),
    [
        ([5, 3], 1, 8, [(Shape(2, 20), [0, 1])]),
        ([9, 3, 17, 4], 2, 8, [(Shape(2, 8), [1, 3]), (Shape(2, 20), [0, 2])]),
        ([9, 3, 17, 4], 4, 1, [(Shape(1, 3), [1]), (Shape(1, 4), [3]), (Shape(1, 9), [0]), (Shape(1, 17), [2])]),
    ],
)
def test_a_batch_is_sorted_into_passes_that_are_padded_to_their_longest_sequence(
    drawn: list[int], passes: int, multiple: int, expected: list[tuple[Shape, list[int]]]
) -> None:
    assert split(drawn, 20, passes, multiple) == expected


def test_a_batch_of_unequal_parts_is_not_split() -> None:
    with pytest.raises(ValueError, match="batch of 3 cannot be split into 2 equal passes"):
        split([5, 6, 7], 8, 2, 1)


def test_a_sorted_batch_has_the_arrays_of_its_passes(
    tiny: Callable[[str], tuple[Path, str]], shared_cache: ArtifactCache
) -> None:
    lengths = Lengths("file", "random", values=(3, 3, 30), passes=3, multiple=16)
    prepared = prepare_inputs(InputSource(*tiny("bert"), lengths, [], 3, "cpu", shared_cache), (Shape(6, 32),))
    passes = prepared.notes["passes"]["6x32"]
    assert [rows for rows, *_ in passes] == [2, 2, 2]
    assert passes[0] == [2, 16, 6]
    assert {f"{rows}x{longest}" for rows, longest, _ in passes} == set(prepared.notes["shapes"])
    # Engines are tuned for the tokens that are not padding.
    assert padded_tokens(prepared)[Shape(2, 16)] == 6
    full = {"shapes": {"2x16": {"tokens": 32, "cut": 0}}}
    assert padded_tokens(Artifact(prepared.path, "", notes=full)) == {}
    # A profiler gets the measured inputs.
    feeds = batch(Shape(2, 16), prepared.path.parent)
    assert feeds["attention_mask"].sum() == 6
    assert {array.shape for array in feeds.values()} == {(2, 16)}
    with pytest.raises(ValueError, match="no batch of 2x64, only of 2x16, 2x32"):
        batch(Shape(2, 64), prepared.path.parent)
    assert batch(Shape(2, 64), None)["attention_mask"].all()
    arrays = np.load(prepared.path)
    assert "6x32/input_ids" not in arrays
    for name, notes in prepared.notes["shapes"].items():
        assert arrays[f"{name}/attention_mask"].sum() == notes["tokens"]


def test_passes_of_one_shape_share_the_arrays_with_the_most_tokens(
    tiny: Callable[[str], tuple[Path, str]], shared_cache: ArtifactCache
) -> None:
    lengths = Lengths("uniform", "random", 3, passes=3, multiple=16)
    prepared = prepare_inputs(InputSource(*tiny("bert"), lengths, [], 3, "cpu", shared_cache), (Shape(6, 16),))
    tokens = [tokens for *_, tokens in prepared.notes["passes"]["6x16"]]
    assert tokens[0] < tokens[-1]
    assert prepared.notes["shapes"] == {"2x16": {"tokens": tokens[-1], "cut": 0}}
    several = prepare_inputs(
        InputSource(*tiny("bert"), lengths, [], 3, "cpu", shared_cache), (Shape(6, 16), Shape(6, 32))
    ).notes
    for rows, longest, tokens in (array_pass for passes in several["passes"].values() for array_pass in passes):
        assert tokens <= several["shapes"][f"{rows}x{longest}"]["tokens"]


def test_uniform_lengths_fill_their_range_and_repeat_with_the_seed() -> None:
    lengths = Lengths("uniform", low=3)
    drawn, cut = draw_lengths(lengths, Shape(500, 20), TOKENS, seed=1)
    assert (min(drawn), max(drawn), cut) == (3, 20, 0)
    assert draw_lengths(lengths, Shape(500, 20), TOKENS, seed=1)[0] == drawn
    assert draw_lengths(lengths, Shape(500, 20), TOKENS, seed=2)[0] != drawn
