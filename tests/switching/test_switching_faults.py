"""The switching suite with faulty sessions: unsteady times, stale outputs, errors, or high memory use."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import SWITCHED, Measured, json_of

from backends.base import Array, Feeds, Unsupported
from backends.null_.null import Costs as Programmed
from backends.null_.null import NullSession
from suites.measuring.clock import Effort
from suites.switching.costs import Costs

FIXED = Programmed(step_ms=3, gpu_ms=5, shape_ms=6, first_ms=3, capture_ms=25)


class Drifting(NullSession):
    """A session that becomes slower and slower."""

    def step(self) -> None:
        self._slow = getattr(self, "_slow", 0) + 1
        self._null_stream.spend(0.5 * self._slow)
        super().step()


def test_a_warm_up_that_never_becomes_steady_is_recorded(measured: Measured) -> None:
    calm = measured(FIXED, repeats=2, switches=(1.0,), effort=Effort(20, 0.1, 2, 10, 0.1, 1e6, 1e6))
    assert calm.measurements[0].steady is True
    restless = measured(FIXED, session=lambda costs: Drifting("ok", costs), repeats=2, switches=(1.0,),
                        effort=Effort(1.0, 0.1, 2, 10, 0.001, 1e6, 1e6))  # fmt: skip
    assert restless.measurements[0].steady is False
    assert json_of(restless)["facts"]["steady"]["plain"] is False


class Stale(NullSession):
    """A session that mixes up its buffers: after shape 2x16 it returns the output of that shape, cut to the new
    shape."""

    def changing(self, feeds: Feeds) -> Any:
        self._before = self._ids.shape
        return super().changing(feeds)

    def fetch(self) -> Array:
        return self._output * (0.5 if self._before == (2, 16) and self._ids.shape == (3, 16) else 1)


class Once(NullSession):
    """A session that computes a shape only once and then always returns that output."""

    def __init__(self, behaviour: str, costs: Programmed) -> None:
        super().__init__(behaviour, costs)
        self._given: dict[tuple[int, ...], Array] = {}

    def step(self) -> None:
        super().step()
        self._output = self._given.setdefault(self._ids.shape, self._output)


class Deaf(NullSession):
    """A session that copies only the first inputs of a shape."""

    def __init__(self, behaviour: str, costs: Programmed) -> None:
        super().__init__(behaviour, costs)
        self._first: dict[tuple[int, ...], Feeds] = {}

    def copy_in(self, feeds: Feeds) -> None:
        super().copy_in(self._first.setdefault(feeds["input_ids"].shape, feeds))


class FrozenGraph(NullSession):
    """A session whose graphs return the output of their capture."""

    def capture(self) -> None:
        super().capture()
        self._captured = {**getattr(self, "_captured", {}), self._ids.shape: self._output}

    def step(self) -> None:
        super().step()
        if self.replays:
            self._output = self._captured[self._ids.shape]


@pytest.mark.parametrize(("wrong", "says"), [
    (Stale, "outputs after a change from 2x16 to 3x16 differ"),
    (Once, "differ from those of a new context"),
    (Deaf, "differ from those of a new context"),
    (FrozenGraph, "with CUDA graphs differ from those"),
])  # fmt: skip
def test_wrong_outputs_are_found(measured: Measured, wrong: type[NullSession], says: str) -> None:
    opened = 0

    def correct_at_first(costs: Programmed) -> NullSession:
        nonlocal opened
        opened += 1
        return NullSession("ok", costs) if opened <= len(SWITCHED) else wrong("ok", costs)

    record = measured(FIXED, session=correct_at_first, repeats=1)
    assert record.outcome == "failed"
    assert says in record.reason
    assert Costs.of(record, True).output_faults
    assert bool(Costs.of(record, False).output_faults) == (wrong is not FrozenGraph)


@pytest.mark.parametrize("wrong", [Once, Deaf])
def test_outputs_that_are_also_wrong_in_a_fresh_context_are_found(measured: Measured, wrong: type[NullSession]) -> None:
    record = measured(FIXED, session=lambda costs: wrong("ok", costs), repeats=1)
    assert record.outcome == "failed"
    assert "cosine is low" in Costs.of(record, False).output_faults


class Forgetful(NullSession):
    """A session that captures graphs and keeps none."""

    def capture(self) -> None:
        if self.keeps_graphs:
            raise Unsupported("keeps none")
        super().capture()


class Breaking(NullSession):
    """A session in which a capture fails permanently, as after a driver error."""

    _broken = False

    def capture(self) -> None:
        self._broken = True
        self.step()

    def step(self) -> None:
        if self._broken:
            raise RuntimeError("CUDA: cudaErrorIllegalAddress\nand more")
        super().step()

    def close(self) -> None:
        if self._broken:
            raise RuntimeError("CUDA: still")


def test_a_session_that_keeps_no_graphs_is_measured_without_graphs(measured: Measured) -> None:
    record = measured(FIXED, session=lambda costs: Forgetful("ok", costs), repeats=2)
    assert record.outcome == "ok"
    assert len(json_of(record)["scores"]["captures"]) == len(SWITCHED)
    assert [entry["cuda_graph"] for entry in json_of(record)["scores"]["parity"]] == [False]
    assert not any(entry["cuda_graph"] for entry in json_of(record)["scores"]["transitions"])
    assert json_of(record)["facts"]["no_cuda_graph"] == "keeps none"


def test_a_late_error_keeps_the_earlier_measurements(measured: Measured) -> None:
    record = measured(FIXED, session=lambda costs: Breaking("ok", costs), repeats=2, switches=(0.5,))
    assert record.outcome == "failed"
    assert "RuntimeError: CUDA: cudaErrorIllegalAddress" in record.reason
    assert len(json_of(record)["scores"]["transitions"]) == 9
    assert [m.cuda_graph for m in record.measurements] == [False]
    assert not Costs.of(record, False).output_faults


def test_a_failed_fresh_context_keeps_the_others(measured: Measured) -> None:
    opened = 0

    def second_fails(costs: Programmed) -> NullSession:
        nonlocal opened
        opened += 1
        if opened == 2:
            raise RuntimeError("no memory")
        return NullSession("ok", costs)

    record = measured(FIXED, session=second_fails, repeats=2)
    assert record.reason == "RuntimeError: no memory"
    assert len(json_of(record)["scores"]["transitions"]) == 18
    assert {check.batch for check in record.checks} == {1, 3}


def test_one_session_is_open_at_a_time_and_all_are_closed(measured: Measured) -> None:
    now, most = [0], [0]

    class Counted(NullSession):
        def __init__(self, costs: Programmed) -> None:
            super().__init__("ok", costs)
            now[0] += 1
            most[0] = max(most[0], now[0])

        def close(self) -> None:
            now[0] -= 1

    record = measured(FIXED, session=Counted, repeats=1)
    assert len(json_of(record)["scores"]["openings"]) == len(SWITCHED) + 3
    assert (now[0], most[0]) == (0, 1)


class Heavy(NullSession):
    """A session that allocates memory when it opens, at the first request of a shape and for a graph, and frees it
    when it closes."""

    used = 0

    def __init__(self, costs: Programmed) -> None:
        super().__init__("ok", costs)
        self._own = 0
        self._null_stream.free_memory = lambda: (1 << 30) - Heavy.used  # type: ignore[method-assign]
        self._take(1000)

    def _take(self, size: int) -> None:
        Heavy.used += size
        self._own += size

    def changing(self, feeds: Feeds) -> Any:
        self._take(10 if "x".join(map(str, feeds["input_ids"].shape)) not in self._seen else 0)
        return super().changing(feeds)

    def capture(self) -> None:
        self._take(100)
        super().capture()

    def close(self) -> None:
        self._take(-self._own)


def test_memory_is_reported_by_purpose(simulated: Any, measured: Measured) -> None:
    Heavy.used = 0
    record = measured(FIXED, session=Heavy, repeats=1)
    assert json_of(record)["facts"]["memory"]["shapes"] == 30
    assert json_of(record)["facts"]["memory"]["graphs"] >= 300
    assert json_of(record)["facts"]["memory"]["opening"] == {"import": 0, "open": 0}
    assert {x for entry in json_of(record)["scores"]["captures"] for x in entry["bytes"]} == {100}
    assert Heavy.used == 0
