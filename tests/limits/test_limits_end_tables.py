"""The tables at the end of a run of suite=limits: their titles name the engine and the client of each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from suites.limits.result import ALONE, SLICES, ClientTimes, EngineBuild, LimitedTimes, LimitsResult, LoadTimes
from suites.records.record import Record
from suites.records.results_folder import MachineFolder
from suites.tables.end_table import WIDTH
from suites.tables.terminal import Style, end_text

MakeRecord = Callable[..., Record]
MS = 1_000_000


def printed(make_record: MakeRecord, folder: Path, result: LimitsResult) -> str:
    """Return the text at the end of a run."""
    record = make_record(suite="limits", measurements=(), scores=result)
    text = end_text("limits", [record], MachineFolder(folder, "gpu-a"), Style("torch_eager/fp32"))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "\n\n\n" not in text
    return text


def below(text: str, title: str) -> list[list[str]]:
    """Return the words of the lines of the table below a title, header first."""
    return [line.split() for line in text.partition(f"{title}\n\n")[2].partition("\n\n")[0].splitlines()]


def timed(share: float, milliseconds: int, built: float = 0.0) -> LimitedTimes:
    samples = (milliseconds * MS,) * 3
    return LimitedTimes(8, 16, share, True, samples, samples, True, round(132 * share), 132, built)


def test_two_clients_have_a_table(make_record: MakeRecord, tmp_path: Path) -> None:
    free = (ClientTimes(1, 1, 16, True, (MS,), (2 * MS,)), ClientTimes(2, 8, 16, True, (4 * MS,), (5 * MS,)))
    half = (
        ClientTimes(1, 1, 16, True, (MS,), (MS,), 64, 132),
        ClientTimes(2, 8, 16, True, (4 * MS,), (6 * MS,), 64, 132),
    )
    text = printed(make_record, tmp_path, LimitsResult("green", (timed(1, 2),), (*free, *half)))
    header, *lines = below(text, "two clients in one process, alone and together")
    assert " ".join(header) == "client batch seq SMs alone p99 ms together p99 ms seq/s"
    assert [line[:1] + line[3:] for line in lines] == [
        ["1", "all", "1.00", "2.00", "500"],
        ["2", "all", "4.00", "5.00", "1,600"],
        ["1", "64", "1.00", "1.00", "1,000"],
        ["2", "64", "4.00", "6.00", "1,333"],
    ]


def test_the_title_of_engines_names_the_share_of_the_times(make_record: MakeRecord, tmp_path: Path) -> None:
    builds = (EngineBuild(0.0, 9.5, "p", (), 3), EngineBuild(0.25, 8.0, "q", (), 3, 2))
    result = LimitsResult("green", (timed(0.25, 4), timed(1, 1), timed(0.25, 3, 0.25)), builds=builds)
    text = printed(make_record, tmp_path, result)
    _, line = below(text, "engines built on all SMs and on the share, both measured on the share")
    assert line == ["8", "16", "25%", "yes", "4.00", "3.00", "-25%"]


def test_the_title_of_loads_names_the_client_of_each_column(make_record: MakeRecord, tmp_path: Path) -> None:
    loads = tuple(LoadTimes(sharing, 0.0, (MS,) * 100, (4 * MS,) * 10, 8, 0) for sharing in (ALONE, SLICES))
    text = printed(make_record, tmp_path, LimitsResult("green", (timed(1, 2),), loads=loads))
    header, *lines = below(text, "two clients with loads: p50 and p99 of client 1, seq/s of client 2")
    assert header == ["sharing", "SMs", "of", "client", "1", "p50", "ms", "p99", "ms", "seq/s"]
    assert [line[-4:-1] for line in lines] == [["all", "1.00", "1.00"]] * 2
