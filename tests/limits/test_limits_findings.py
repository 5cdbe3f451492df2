"""Figures of limited compute on the H100 in docs/findings.md and the guides, against the records."""

from __future__ import annotations

from itertools import pairwise

import pytest
from conftest import ROOT

from docs.generate.limits import limits_record, limits_result
from docs.generate.results import H100, REFERENCE
from suites.limits.result import ALONE, PROCESSES, SLICES, THREADS, LimitedTimes, LoadTimes, percentile_ms
from suites.limits.sharing_tables import sharing_rows
from suites.records.results_folder import MachineFolder
from suites.tables.markdown import digits
from suites.text import essential


def text_of(page: str) -> str:
    return " ".join((ROOT / "docs" / page).read_text(encoding="utf-8").split())


FINDINGS = text_of("findings.md").partition("## Limited compute")[2].partition("## ")[0]
GUIDE = text_of("guides/limits.md")
H200 = "nvidia-h200-driver-580.159.04"


def steps(batch: int) -> dict[int, LimitedTimes]:
    """Return the times with a CUDA graph by the number of SMs."""
    return {times.units: times for times in limits_result().at(batch, 128) if times.cuda_graph}


def load(sharing: str, share: float = 0.0) -> LoadTimes:
    (found,) = [each for each in limits_result().loads if (each.sharing, each.share) == (sharing, share)]
    return found


def test_a_batch_of_1_needs_a_quarter_of_the_sms() -> None:
    found = steps(1)
    whole, quarter, least = found[132], found[40], found[16]
    assert quarter.p50_ms < 1.1 * whole.p50_ms < least.p50_ms
    assert (
        f"On 40 of 132 SMs, 1 x 128 takes {digits(quarter.p50_ms)} ms, {quarter.p50_ms / whole.p50_ms:.2f} times the "
        f"{digits(whole.p50_ms)} ms on all SMs. On 16 SMs it takes {least.p50_ms / whole.p50_ms:.2f} times as long."
    ) in FINDINGS


def test_a_batch_of_32_uses_all_sms() -> None:
    found = steps(32)
    all_, most, some, least = (digits(found[units].p50_ms) for units in (132, 72, 40, 16))
    times = [found[units].p50_ms for units in sorted(found)]
    assert all(before > 1.1 * after for before, after in pairwise(times))
    assert f"32 x 128 takes {all_} ms on all SMs, {most} ms on 72, {some} ms on 40 and {least} ms on 16, so" in FINDINGS
    assert f"in green contexts with {min(found)} to {max(found)} SMs" in GUIDE


def test_two_clients_of_one_process() -> None:
    free, half = limits_result().pair(False), limits_result().pair(True)
    assert {client.units for client in half} == {64}
    assert (
        f"Alone, client 1 has a p99 of {digits(percentile_ms(free[0].alone, 99))} ms. Together it is "
        f"{digits(free[0].together_p99_ms)} ms without a limit, and {digits(half[0].together_p99_ms)} ms with 64 SMs"
    ) in FINDINGS
    rates = [digits(sum(client.sequences_per_s for client in pair)) for pair in (half, free)]
    assert f"both clients together serve {rates[0]} instead of {rates[1]} sequences per second" in FINDINGS
    (client, _) = half
    assert f"so some SMs may stay unused: here {client.total - 2 * client.units} of {client.total}." in GUIDE


def test_two_clients_with_loads() -> None:
    alone, slices, mps = load(ALONE), load(SLICES), load(PROCESSES, 1.0)
    quarter, half = load(THREADS, 0.25), load(THREADS, 0.5)
    kept = [f"{each.sequences_per_s / alone.sequences_per_s:.0%}" for each in (slices, mps, quarter, half)]
    assert (quarter.units, half.units, limits_record().cell.options["rate"]) == (40, 64, 100)
    assert (
        f"Their p99 is {digits(alone.p99_ms)} ms alone, {digits(slices.p99_ms)} ms with time slices of two processes, "
        f"{digits(mps.p99_ms)} ms under MPS without limits, and {digits(quarter.p99_ms)} ms in a green context with 40 "
        f"SMs. Client 2 keeps {kept[0]}, {kept[1]} and {kept[2]} of its throughput. With 64 SMs the p99 is "
        f"{digits(half.p99_ms)} ms, and client 2 keeps {kept[3]}. "
    ) in FINDINGS
    (requests,) = {len(each.latency) for each in (alone, slices, mps, quarter, half)}
    assert f"Each p99 is that of {requests} requests." in FINDINGS
    assert f"that of {requests} requests in {limits_record().cell.options['load_s']:g} s (`limits.load_s=" in GUIDE


def test_a_client_failed_under_mps() -> None:
    (failed,) = [each for each in limits_result().loads if each.outcome]
    assert (failed.sharing, failed.outcome, failed.share) == (PROCESSES, "failed", 0.0)
    assert limits_record().cell.options["process_shares"] == [0.25, 0.5]
    assert limits_record().cell.release == "tensorrt 8.6.0"
    for words in ("Platform (Cuda) error", "invalid argument"):
        assert words in essential(failed.reason)
        assert f"`{words}`" in GUIDE
    (note,) = [row[-1] for row in sharing_rows(limits_result()) if row[-1]]
    assert note == f"failed: {essential(failed.reason)}"
    assert len(note) < 120 < len(failed.reason)


@pytest.mark.parametrize("machine", [H100, H200])
def test_builders_started_early_on_gpus(machine: str) -> None:
    folder = MachineFolder(REFERENCE, machine)
    records = [record for suite in ("limits", "serving") for record in folder.records(suite)]
    early = [seconds for record in records if (seconds := record.artifacts.built_notes.started_early_s)]
    assert 9.8 <= round(min(early), 1) <= round(max(early), 1) <= 15.5
    assert "these are 9.8 to 15.5 s." in text_of("guides/tensorrt.md")


@pytest.mark.parametrize("machine", [H100, H200])
def test_ceilings_have_run_on_gpus(machine: str) -> None:
    (record,) = MachineFolder(REFERENCE, machine).records("ceilings")
    assert record.outcome == "ok"
    assert f"{machine}/tables/no-model/ceilings.md" in text_of("guides/ceilings.md")
