from __future__ import annotations

import numpy as np
import pytest

from backends.base import Shape
from backends.profiles import Profile
from backends.tensorrt_.runtime.layout import Columns, Layout, Packed, Rows

LAYOUTS = [Rows(("input_ids", "attention_mask")), Columns(), Packed(), Packed(positions=True), Packed(multiple=4)]
PROFILE = Profile(Shape(1, 16), Shape(4, 32), Shape(8, 64))


def batch(lengths: list[int], sequence: int = 5) -> dict[str, np.ndarray]:
    mask = (np.arange(sequence) < np.array(lengths)[:, None]).astype(np.int32)
    ids = (np.arange(mask.size, dtype=np.int32).reshape(mask.shape) + 100) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": mask * 1}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: type(layout).__name__)
def test_the_profile_is_restored_from_its_sizes(layout: Layout) -> None:
    assert layout.profile(layout.sizes(PROFILE)) == PROFILE


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: type(layout).__name__)
def test_outputs_are_restored_to_the_places_of_their_tokens(layout: Layout) -> None:
    """The simulated engine returns [id, 2 * id] for each token."""
    feeds = batch([5, 2, 3])
    arranged = layout.arrange(feeds)
    ids = arranged.arrays["input_ids"].astype(np.float32)
    output = np.stack([ids, 2 * ids], axis=-1)
    tokens = feeds["attention_mask"] == 1
    if arranged.starts is None:
        restored = arranged.restore(output if isinstance(layout, Rows) else output[..., None, None])
    else:
        restored = output[arranged.places().clip(max=len(output) - 1)]
    np.testing.assert_array_equal(restored[tokens][:, 0], feeds["input_ids"][tokens])
    np.testing.assert_array_equal(restored[tokens][:, 1], 2 * feeds["input_ids"][tokens])
    assert restored.shape == (3, 5, 2)
    assert all(array.flags.c_contiguous and array.dtype == np.int32 for array in arranged.arrays.values())


def test_a_packed_profile_is_tuned_for_the_expected_tokens() -> None:
    tuned = Packed(tokens={Shape(4, 32): 70}).sizes(PROFILE)
    assert tuned["input_ids"] == tuned["segment_ids"] == ((1,), (70,), (8 * 64,))
    assert tuned["max_seqlen"] == Packed().sizes(PROFILE)["max_seqlen"]
    assert Packed(tokens={Shape(4, 31): 70}).sizes(PROFILE) == Packed().sizes(PROFILE)


def test_packed_arrays_have_starts_and_positions() -> None:
    arrays = Packed(positions=True).arrange(batch([3, 1, 2])).arrays
    assert arrays["input_ids"].tolist() == [100, 101, 102, 105, 110, 111]
    assert arrays["positions"].tolist() == [0, 1, 2, 0, 0, 1]
    assert arrays["segment_ids"].tolist() == [1] * 6
    assert arrays["cu_seqlens"].tolist() == [0, 3, 4, 6]
    assert arrays["max_seqlen"].shape == (5,)


@pytest.mark.parametrize(("multiple", "tokens"), [(1, 6), (3, 6), (4, 8), (8, 8), (16, 15), (64, 15)])
def test_packed_tokens_are_padded_to_a_multiple_but_never_beyond_the_shape(multiple: int, tokens: int) -> None:
    plain = Packed(positions=True).arrange(batch([3, 1, 2])).arrays
    arrays = Packed(positions=True, multiple=multiple).arrange(batch([3, 1, 2])).arrays
    for name in ("input_ids", "segment_ids", "positions"):
        assert arrays[name].tolist() == plain[name].tolist() + [0] * (tokens - 6)
    for name in ("cu_seqlens", "max_seqlen"):
        assert arrays[name].tolist() == plain[name].tolist()


@pytest.mark.parametrize("multiple", [1, 64])
@pytest.mark.parametrize(("lengths", "sequence"), [([16], 16), ([1, 64, 2], 64), ([64] * 8, 64), ([1] * 8, 16)])
def test_packed_tokens_of_a_shape_fit_the_profile_that_contains_it(
    lengths: list[int], sequence: int, multiple: int
) -> None:
    """The engine never gets more tokens than the profile allows, or a longest sequence that is too short."""
    layout = Packed(positions=True, multiple=multiple)
    arrays, sizes = layout.arrange(batch(lengths, sequence)).arrays, layout.sizes(PROFILE)
    assert max(np.diff(arrays["cu_seqlens"])) <= len(arrays["max_seqlen"]) == sequence
    for name, ((low,), _, (high,)) in sizes.items():
        assert low <= len(arrays[name]) <= high


def test_families_without_token_types_get_zeros() -> None:
    feeds = batch([2, 2])
    del feeds["token_type_ids"]
    assert not Packed().arrange(feeds).arrays["segment_ids"].any()


@pytest.mark.parametrize("layout", [Columns(), Packed()], ids=lambda layout: type(layout).__name__)
def test_batches_that_would_give_wrong_numbers_are_refused(layout: Layout) -> None:
    with pytest.raises(ValueError, match="sequence 1 of the batch has no token"):
        layout.arrange(batch([5, 0, 3]))
    assert_refused(
        layout, batch([5, 3]) | {"token_type_ids": np.zeros((2, 4), np.int32)}, "token_type_ids has the shape"
    )
    assert_refused(layout, batch([5, 3]) | {"input_ids": np.zeros((3, 5), np.int32)}, "give the shape of input_ids")
    assert_refused(layout, batch([5, 3]) | {"attention_mask": np.ones((2, 5), np.float32)}, "has the type float32")
    odd = batch([5, 3])
    odd["attention_mask"][1] = [3, -1, 0, 0, 0]
    assert_refused(layout, odd, "attention_mask has the value -1; give 1 for a token and 0 for padding")
    assert_refused(
        layout,
        {name: array for name, array in batch([5]).items() if name != "attention_mask"},
        "attention_mask is missing",
    )
    assert_refused(layout, batch([]), "input_ids has the shape")
    assert_refused(layout, {name: array[0] for name, array in batch([5]).items()}, "input_ids has the shape")
    broken = batch([5, 3, 3])
    broken["attention_mask"][2] = [1, 0, 1, 0, 0]
    with pytest.raises(ValueError, match="sequence 2 of the batch has tokens after padding"):
        layout.arrange(broken)


def assert_refused(layout: Layout, feeds: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        layout.arrange(feeds)
    assert "\n" not in str(raised.value)
