"""Two clients with loads on one device: alone, by time slices, under MPS, and with green contexts.

The process of this module uses no device: it starts the processes of the clients, so that each of them may be a client
of MPS or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from backends.base import Unavailable, Unsupported
from suites.limits.client_meeting import OTHER_ENDED, meeting_socket, pass_on
from suites.limits.clients import COUNT
from suites.limits.load_clients import merged
from suites.limits.result import ALONE, PROCESSES, SLICES, THREADS, LimitsResult, LoadTimes
from suites.limits.suite import BOTH, LATENCY, THROUGHPUT, LimitsQuestion, LoadClient
from suites.measuring.measure_run import MeasureRun
from suites.records.record import FAILED, UNAVAILABLE, UNSUPPORTED


def measure_loads(run: MeasureRun, question: LimitsQuestion) -> tuple[LoadTimes, ...]:
    """Return the times for each kind of sharing.

    A kind that this machine does not have is named with its reason, and so is a share at which a client fails.

    Raises:
        RuntimeError: a client without a limit failed.
    """
    plan = question.loads
    assert plan is not None
    found = _in_processes(run, question, 0.0)

    def under_mps() -> None:
        with run.limit_process(None):
            for share in (1.0, *plan.shares):
                found.extend(_or_failure(PROCESSES, share, partial(_in_processes, run, question, share)))

    def with_green_contexts() -> None:
        for share in plan.shares:
            run.progress(f"two clients with green contexts, {share:.0%} for client 1")
            client = LoadClient(BOTH, share)
            found.extend(_or_failure(THREADS, share, partial(_child, run, question, client)))

    found.extend(_refused(PROCESSES, under_mps))
    found.extend(_refused(THREADS, with_green_contexts))
    return tuple(found)


def _refused(sharing: str, work: Callable[[], None]) -> list[LoadTimes]:
    """Run `work`. Return its reason if it does not end well."""
    try:
        work()
    except (Unavailable, Unsupported, RuntimeError) as error:
        return [_failure(sharing, 0.0, error)]
    return []


def _or_failure(sharing: str, share: float, work: Callable[[], Sequence[LoadTimes]]) -> Sequence[LoadTimes]:
    """Return the times of one share, or the reason why it failed: the other shares may work.

    Raises:
        Unavailable, Unsupported: the machine or the backend does not have this kind of sharing.
    """
    try:
        return work()
    except RuntimeError as error:
        return [_failure(sharing, share, error)]


def _failure(sharing: str, share: float, error: Exception) -> LoadTimes:
    outcomes = {Unavailable: UNAVAILABLE, Unsupported: UNSUPPORTED}
    reason = str(error).partition("\n")[0]
    return LoadTimes(sharing, share, outcome=outcomes.get(type(error), FAILED), reason=reason)


def _in_processes(run: MeasureRun, question: LimitsQuestion, share: float) -> list[LoadTimes]:
    """Run each client in a process: with MPS and its share, or, if `share` is 0, without limits, also alone.

    With a share of 1, no client has a limit.
    """
    run.progress(f"two processes{f' under MPS, {share:.0%} for client 1' if share else ''}")
    rest = 1 - share if 0 < share < 1 else share
    with meeting_socket() as (path, listener), ThreadPoolExecutor(COUNT) as pool:
        clients = (LoadClient(LATENCY, share, not share, path), LoadClient(THROUGHPUT, rest, not share, path))
        futures = [pool.submit(_child, run, question, client) for client in clients]
        pass_on(listener, COUNT, lambda: any(future.done() for future in futures))
        listener.close()
        errors = {client.number: error for client, future in zip(clients, futures, strict=True)
                  if (error := future.exception()) is not None}  # fmt: skip
    for number, error in sorted(errors.items(), key=lambda item: OTHER_ENDED in str(item[1])):
        if isinstance(error, RuntimeError):
            raise RuntimeError(f"client {number}: {error}") from error
        raise error
    names = (PROCESSES,) if share else (ALONE, SLICES)
    pairs = zip(names, *(future.result() for future in futures), strict=True)
    return [
        merged(first, replace(second, sharing=name, units=first.units, total=first.total), share)
        for name, first, second in pairs
    ]


def _child(run: MeasureRun, question: LimitsQuestion, client: LoadClient) -> tuple[LoadTimes, ...]:
    result = run.again(replace(question, client=client), ())
    assert isinstance(result, LimitsResult)
    return result.loads
