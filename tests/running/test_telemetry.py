from __future__ import annotations

from dataclasses import replace

import pytest

from backends.json_codec import to_json
from suites.records.measurement import Measurement
from suites.running.telemetry import Reading, TelemetrySampler, annotate

SECOND = 1_000_000_000
MEASUREMENT = Measurement(
    phase="sustained",
    batch=4,
    sequence=16,
    cuda_graph=False,
    samples=(10_000_000,) * 2,
    windows=((1 * SECOND, 2 * SECOND, 50), (2 * SECOND, 3 * SECOND, 50)),
    steady=True,
)
READINGS = [
    Reading(
        at=tenth * SECOND // 10,
        sm_clock=1980 if tenth < 20 else 1500,
        memory_clock=3201,
        power=600.0,
        temperature=40 + tenth // 10,
        reasons=0x1 if tenth < 20 else 0x4,
        energy=60_000 * tenth,
        memory=1_000 + 50 * tenth,
        processes=1,
    )
    for tenth in range(41)
]


def test_energy_is_the_difference_of_the_counter_per_sequence() -> None:
    # 600 W over 2 s for 100 steps of 4 sequences: 1200 J / 400 = 3 J.
    assert annotate(MEASUREMENT, READINGS).telemetry.energy_mj_per_sequence == pytest.approx(3000)


def test_windows_under_throttling_are_marked_and_the_reason_is_named() -> None:
    annotated = annotate(MEASUREMENT, READINGS)
    assert annotated.throttled == (True, True)  # the reading at exactly 2 s belongs to both windows
    assert annotate(MEASUREMENT, READINGS[:20]).throttled == (False, False)
    assert annotated.telemetry.throttle_reasons == ("software power cap",)
    assert annotated.telemetry.memory_bytes == 1500  # above the first reading
    assert annotated.telemetry.temperature_c == 43


def test_idle_and_application_clocks_do_not_count_as_throttling() -> None:
    idle = [replace(reading, reasons=0x1 | 0x2) for reading in READINGS]
    assert annotate(MEASUREMENT, idle).throttled == (False, False)


@pytest.mark.parametrize("change", [{"phase": "gpu"}, {"windows": ((SECOND, SECOND + SECOND // 10, 10),)}])
def test_energy_is_omitted_if_it_would_be_inaccurate(change: dict[str, object]) -> None:
    annotated = annotate(replace(MEASUREMENT, **change), READINGS)  # type: ignore[arg-type]
    assert annotated.telemetry.readings
    assert annotated.telemetry.energy_mj_per_sequence is None


def test_a_reading_that_ends_after_a_window_does_not_count() -> None:
    late = [
        replace(reading, until=reading.at + SECOND // 20, memory=10**9 * (reading.at == 3 * SECOND))
        for reading in READINGS
    ]
    assert annotate(MEASUREMENT, late).telemetry.memory_bytes is None


def test_others_on_the_gpu_are_counted() -> None:
    assert annotate(MEASUREMENT, READINGS).telemetry.other_processes is None
    crowded = [replace(reading, processes=3 if index == 25 else 1) for index, reading in enumerate(READINGS)]
    assert annotate(MEASUREMENT, crowded).telemetry.other_processes == 2


def test_values_that_a_gpu_does_not_report_are_omitted() -> None:
    silent = [replace(reading, energy=0, power=0.0, memory_clock=0, processes=0) for reading in READINGS]
    telemetry = annotate(MEASUREMENT, silent).telemetry
    reported = set(to_json(telemetry))
    assert not {"energy_mj_per_sequence", "power_w", "memory_clock_mhz", "other_processes"} & reported
    assert telemetry.sm_clock_mhz == 1500


def test_without_readings_no_values_are_reported() -> None:
    with TelemetrySampler("") as telemetry:
        pass
    assert annotate(MEASUREMENT, telemetry.readings) == MEASUREMENT
