"""The advice of suite=limits: the share at which a step is hardly slower, and limits for builds and for two clients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from suites.limits.result import ALONE, PROCESSES, SLICES, ClientTimes, LimitedTimes, LimitsResult, LoadTimes
from suites.records.record import FAILED
from suites.tables.markdown import digits

SLOWER = 0.1
"""A step counts as hardly slower up to this share of its time on the largest share."""

LEAST = 0.05
"""Smaller changes by a limit count as none."""

REMEDIES = "docs/guides/limits.md has remedies."


def sentences(result: LimitsResult) -> Iterator[str]:
    """Yield one sentence for each shape, one for engines built under a limit, and one for each kind of clients."""
    for batch, sequence in result.shapes:
        yield f"{batch}x{sequence}: {_smallest_share(result.at(batch, sequence))}"
    if result.failures:
        yield _failed_shares(result)
    free, limited = result.pair(False), result.pair(True)
    if free and limited:
        yield _two_clients(free, limited)
    if pairs := result.engine_pairs():
        yield _engines(pairs)
    loads = [times for times in result.loads if times.latency]
    if loads and loads[0].sharing == ALONE:
        yield _loads(loads[0], loads[1:])
    if failed := [times for times in result.loads if times.outcome == FAILED and times.sharing]:
        yield _failed(failed)


def _smallest_share(measured: Sequence[LimitedTimes]) -> str:
    """Name the smallest share that is hardly slower than the largest one, for steps with a CUDA graph if possible."""
    with_graph = [times for times in measured if times.cuda_graph]
    rows = with_graph or measured
    largest = rows[-1]
    enough = next(times for times in rows if times.p50_ms <= (1 + SLOWER) * largest.p50_ms)
    kind = "CUDA graph" if with_graph else "no CUDA graph"
    if len(rows) == 1:
        return f"{place(largest)} takes {digits(largest.p50_ms)} ms ({kind}); measure more shares to compare them."
    if enough is largest:
        smallest = rows[0]
        return (
            f"every smaller share is more than {SLOWER:.0%} slower than {place(largest)} ({kind}); {place(smallest)} "
            f"takes {smallest.p50_ms / largest.p50_ms:.1f} times as long."
        )
    return (
        f"{place(enough)} is enough: {digits(enough.p50_ms)} ms against {digits(largest.p50_ms)} ms on "
        f"{place(largest)} ({kind}), so other work can have the rest."
    )


def place(times: LimitedTimes) -> str:
    """Return the share of a row, with the number of SMs if it is known."""
    return f"{times.share:.0%} of the SMs" + (f" ({times.units} of {times.total})" if times.total else "")


def _failed_shares(result: LimitsResult) -> str:
    """Name the shares at which the engine built on all SMs has no times, and those with an engine of their own."""
    shares = ", ".join(f"{failure.share:.0%}" for failure in result.failures)
    own = ", ".join(f"{share:.0%}" for share in sorted({times.share for times in result.engines_alone()}))
    remedy = f"At {own}, an engine built there runs." if own else REMEDIES
    return f"The engine built on all SMs has no times on {shares} of the SMs; the notes have the reason. {remedy}"


def _two_clients(free: Sequence[ClientTimes], limited: Sequence[ClientTimes]) -> str:
    before, after = (pair[0].together_p99_ms for pair in (free, limited))
    rates = [sum(client.sequences_per_s for client in pair) for pair in (free, limited)]
    shorter, faster = after < (1 - LEAST) * before, rates[1] > (1 + LEAST) * rates[0]
    if shorter and faster:
        choice = "divide the SMs"
    elif shorter:
        choice = "divide the SMs if client 1 needs the short latency"
    else:
        choice = "do not divide the SMs" + (" for the latency of client 1" if faster else "")
    return (
        f"Two clients: {choice}. With half of the SMs each, the p99 of client 1 is {digits(after)} ms, without a limit "
        f"{digits(before)} ms; both clients together reach {digits(rates[1])} and {digits(rates[0])} seq/s."
    )


def _engines(pairs: Sequence[tuple[LimitedTimes, LimitedTimes]]) -> str:
    """Compare engines by their steps with a CUDA graph if possible."""
    rows = [pair for pair in pairs if pair[0].cuda_graph] or pairs
    whole, own = min(rows, key=lambda pair: pair[1].p50_ms / pair[0].p50_ms)
    slowest = max(built.p50_ms / before.p50_ms for before, built in rows) - 1
    if own.p50_ms < (1 - LEAST) * whole.p50_ms:
        return (
            f"Engines: build on the share where the engine runs. At {place(own)}, {own.batch}x{own.sequence} takes "
            f"{digits(own.p50_ms)} ms then, and {digits(whole.p50_ms)} ms with the engine built on all SMs."
        )
    if slowest > LEAST:
        return f"Engines: build on all SMs. Engines built on a share take up to {slowest:.0%} longer on it."
    return f"Engines: build on all SMs. No build on a share changes p50 by more than {LEAST:.0%}."


def _loads(alone: LoadTimes, shared: Sequence[LoadTimes]) -> str:
    """Name the kinds of sharing with the shortest p99 of client 1 and with the most throughput of client 2."""
    best, most = min(shared, key=lambda times: times.p99_ms), max(shared, key=lambda times: times.sequences_per_s)
    slices = next((times for times in shared if times.sharing == SLICES), best)
    found = [f"the shortest p99 of client 1 is {_load(best, alone)}."]
    if most is not best:
        found.append(f"Client 2 keeps the most throughput {_kind(most)}: {_kept(most, alone)}, with a p99 of client 1 "
                     f"of {digits(most.p99_ms)} ms.")  # fmt: skip
    if slices not in (best, most):
        found.append(f"Without any setting, the p99 is {_load(slices, alone)}.")
    return f"Two clients with loads: {' '.join(found)} Alone, client 1 has a p99 of {digits(alone.p99_ms)} ms."


def _failed(failed: Sequence[LoadTimes]) -> str:
    """Name the kinds of sharing at which a client failed."""
    kinds = ", ".join(dict.fromkeys(_kind(times) for times in failed))
    return f"Two clients with loads: a client failed {kinds}; the notes have the reason. {REMEDIES}"


def _load(times: LoadTimes, alone: LoadTimes) -> str:
    return f"{digits(times.p99_ms)} ms {_kind(times)}; client 2 keeps {_kept(times, alone)} of its throughput then"


def _kept(times: LoadTimes, alone: LoadTimes) -> str:
    return f"{times.sequences_per_s / alone.sequences_per_s:.0%}"


def _kind(times: LoadTimes) -> str:
    kind = {SLICES: "with time slices", PROCESSES: "under MPS"}.get(times.sharing, f"with {times.sharing}")
    if times.share:
        return kind + (f" and {times.share:.0%} of the SMs for client 1" if times.share < 1 else " without limits")
    return kind
