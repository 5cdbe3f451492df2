"""Formulas of queueing theory: mean waits, and the probability of a wait."""

from __future__ import annotations

import math


def delay_probability(servers: int, load: float) -> float:
    """Return the probability that a request waits in an M/M/c queue (Erlang's C formula)."""
    offered = servers * load
    terms = [offered**k / math.factorial(k) for k in range(servers)]
    last = offered**servers / math.factorial(servers) / (1 - load)
    return last / (sum(terms) + last)


def deterministic_wait(servers: int, load: float) -> float:
    """Return the mean wait of an M/D/c queue as a multiple of the service time, by summing over the steady state.

    Crommelin's formula: W = sum over i of exp(-i a) (sum over j >= i c of (i a)^j/j! - (c/a) sum over j > i c of ...),
    where a is the offered load in servers.
    """
    offered, total = servers * load, 0.0
    for i in range(1, 400):
        mean, first = i * offered, i * servers
        logs = [j * math.log(mean) - mean - math.lgamma(j + 1) for j in range(first, first + 600)]
        shares = [math.exp(value) for value in logs]
        total += sum(shares) - sum(shares[1:]) / load
    return total
