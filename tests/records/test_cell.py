from __future__ import annotations

from dataclasses import replace

import pytest

from backends.json_codec import from_json
from suites.records.cell import Cell

CELL = Cell(
    suite="latency",
    model="minilm",
    weights="trained",
    model_version="hub@main",
    backend="ort",
    release="onnxruntime-gpu 1.31.1",
    precision="int8",
    device="cpu",
    shapes=((1, 32), (8, 32)),
    lengths={"distribution": "full", "seed": 0},
    options={"threads": 0, "quantization": {"method": "minmax"}},
)


def test_the_id_is_the_same_in_every_process_and_version() -> None:
    # A changed id would disconnect every committed record from its cell.
    assert CELL.id == "minilm-ort-int8-ed429b07ab88"


def test_the_order_of_options_does_not_matter() -> None:
    assert replace(CELL, options=dict(reversed(CELL.options.items()))).id == CELL.id


@pytest.mark.parametrize(
    "change",
    [
        {"release": "onnxruntime-gpu 1.32.0"},
        {"shapes": ((1, 32),)},
        {"weights": "random (seed 0)"},
        {"options": {"threads": 1, "quantization": {"method": "minmax"}}},
    ],
)
def test_every_field_of_a_cell_changes_its_id(change: dict[str, object]) -> None:
    assert replace(CELL, **change).id != CELL.id  # type: ignore[arg-type]


def test_json_round_trip() -> None:
    assert from_json(Cell, CELL.to_json()) == CELL
