"""Two clients with loads on one device: alone, by time slices, under MPS, and with green contexts.

The process of this module uses no device: it starts the processes of the clients, so that each of them may be a client
of MPS or not.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from backends.base import Unavailable, Unsupported
from suites.limits.client_meeting import OTHER_ENDED, meeting_socket, pass_on
from suites.limits.clients import COUNT
from suites.limits.load_clients import merged
from suites.limits.result import ALONE, PROCESSES, SLICES, THREADS, LimitsResult, LoadTimes
from suites.limits.suite import BOTH, LATENCY, THROUGHPUT, LimitsQuestion, LoadClient
from suites.measuring.measure_run import MeasureRun
from suites.records.record import FAILED, UNAVAILABLE, UNSUPPORTED


def measure_loads(run: MeasureRun, question: LimitsQuestion) -> tuple[LoadTimes, ...]:
    """Return the times for each kind of sharing. A kind that this machine does not have is named with its reason.

    Raises:
        RuntimeError: a client without a limit failed.
    """
    plan = question.loads
    assert plan is not None
    found = _in_processes(run, question, 0.0)

    def under_mps() -> None:
        with run.limit_process(None):
            for share in (1.0, *plan.shares):
                found.extend(_in_processes(run, question, share))

    def with_green_contexts() -> None:
        for share in plan.shares:
            run.progress(f"two clients with green contexts, {share:.0%} for client 1")
            found.extend(_child(run, question, LoadClient(BOTH, share)))

    found.extend(_refused(PROCESSES, under_mps))
    found.extend(_refused(THREADS, with_green_contexts))
    return tuple(found)


def _refused(sharing: str, work: Callable[[], None]) -> list[LoadTimes]:
    """Run `work`. Return its reason if it does not end well."""
    outcomes = {Unavailable: UNAVAILABLE, Unsupported: UNSUPPORTED}
    try:
        work()
    except (Unavailable, Unsupported, RuntimeError) as error:
        return [LoadTimes(sharing, outcome=outcomes.get(type(error), FAILED), reason=str(error).partition("\n")[0])]
    return []


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
        errors = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda error: OTHER_ENDED in str(error)):
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
