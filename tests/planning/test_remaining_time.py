"""Remaining time of a sweep."""

from __future__ import annotations

from suites.planning.remaining_time import FIRST, LATER, CellTurns, RemainingTime


def test_it_is_unknown_until_a_cell_has_ended() -> None:
    remaining = RemainingTime([CellTurns({}, 1, 2) for _ in range(3)])
    assert remaining.text() == ""
    remaining.ended(0, FIRST, 100.0)
    # Two first turns and six later turns; a later turn takes at most as long as a first one.
    assert remaining.seconds() == 800.0
    remaining.ended(1, FIRST, 100.0)
    remaining.ended(2, FIRST, 100.0)
    remaining.ended(0, LATER, 40.0)
    assert remaining.seconds() == 200.0
    assert remaining.text() == "about 3 min left"


def test_past_records_count_and_are_corrected_by_the_cells_that_ended() -> None:
    remaining = RemainingTime([CellTurns({FIRST: 60.0, LATER: 30.0}, 1, 1) for _ in range(2)])
    assert remaining.seconds() == 180.0
    remaining.ended(0, FIRST, 120.0)
    assert remaining.seconds() == 240.0
    assert remaining.text() == "about 4 min left"


def test_a_reused_or_failed_cell_does_not_change_the_others() -> None:
    remaining = RemainingTime([CellTurns({FIRST: 60.0, LATER: 30.0}, 1, 1) for _ in range(2)])
    remaining.ended(0, FIRST, 1.0, typical=False)
    remaining.drop(0)
    assert remaining.seconds() == 90.0


def test_a_correction_is_limited() -> None:
    remaining = RemainingTime([CellTurns({FIRST: 1.0}, 1, 0), CellTurns({FIRST: 60.0}, 1, 0)])
    remaining.ended(0, FIRST, 1000.0)
    assert remaining.seconds() == 300.0


def test_text() -> None:
    def text(seconds: float) -> str:
        return RemainingTime([CellTurns({FIRST: seconds}, 1, 0)]).text()

    assert [text(seconds) for seconds in (3, 50, 150, 6000)] == [
        "less than a minute left",
        "about 1 min left",
        "about 2 min left",
        "about 1 h 40 min left",
    ]
