"""The heading of a section names the output, because rows of different outputs do not compete."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from suites.records.cell import Cell
from suites.tables.models import output_text


@pytest.mark.parametrize(
    ("output", "options", "text"),
    [
        ("hidden", {}, ""),
        ("embedding", {}, ", output=embedding"),
        ("embedding", {"pooling": ["cls", "mean"]}, ", output=embedding, pooling=cls+mean"),
        ("embedding", {"normalize": False}, ", output=embedding, normalize=off"),
    ],
)
def test_a_heading_names_the_output_and_its_own_pooling(output: str, options: dict[str, object], text: str) -> None:
    assert output_text(cast(Cell, SimpleNamespace(output=output, options=options))) == text
