"""Command lines before Hydra sees them, and what goes wrong as one line and a status."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from suites.checks import Refused
from suites.command_line import FLAGS, guarded, overrides


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (["backend=null"], ['backend="null"']),
        (["backend=ort,null,null"], ['backend=ort,"null","null"']),
        (["model=nullish", "backend=nullish"], ["model=nullish", "backend=nullish"]),
        (["results=x", "-m", "backend=ort"], ["-m", "results=x", "backend=ort"]),
        (["--cfg", "job", "batch=[1]"], ["--cfg", "job", "batch=[1]"]),
    ],
)
def test_what_hydra_sees(typed: list[str], read: list[str]) -> None:
    assert overrides(typed, FLAGS) == read


@pytest.mark.parametrize(
    ("typed", "says"),
    [("--multrun", "no flag --multrun; did you mean --multirun?"), ("--bulders", "there is no flag --bulders")],
)
def test_a_flag_that_is_none_is_refused(typed: str, says: str) -> None:
    with pytest.raises(Refused, match=says):
        overrides([typed], FLAGS)


def raising(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (Refused("no such thing"), 2, "refused: no such thing\n"),
        (KeyboardInterrupt(), 130, "interrupted: what was measured is kept"),
    ],
)
def test_an_end_has_a_line_and_a_status(
    error: BaseException, status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(raising(error)) == status
    assert capsys.readouterr().err.startswith(says)


def test_a_fault_of_our_own_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        guarded(raising(ZeroDivisionError()))
