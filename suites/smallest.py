"""A small set that is enough, found with few questions: bisection, then what it found taken apart greedily."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def smallest(units: Sequence[str], enough: Callable[[frozenset[str]], bool]) -> list[str] | None:
    """Units, in their order, that are enough together while none of them can be spared; None if all are not enough.

    If more units are never worse, about 2 k log2(n / k) + 2 k questions lead to k of n units (QuickXplain: Junker, AAAI
    2004). If they sometimes are, the greedy pass still ends in a set that is enough. A set may be asked about twice.
    """

    def ask(chosen: Sequence[str]) -> bool:
        return enough(frozenset(chosen))

    def needed(given: list[str], changed: bool, candidates: list[str]) -> list[str]:
        """Those of `candidates` that are needed beside `given`; `changed` if it was not asked about yet."""
        if changed and ask(given):
            return []
        if len(candidates) == 1:
            return candidates
        half = len(candidates) // 2
        first, second = candidates[:half], candidates[half:]
        of_second = needed(given + first, True, second)
        of_first = needed(given + of_second, bool(of_second), first)
        return of_first + of_second

    if ask([]):
        return []
    if not ask(units):
        return None
    found = needed([], False, list(units))
    if not ask(found):
        found = list(units)
    for unit in list(found):
        spared = [other for other in found if other != unit]
        if ask(spared):
            found = spared
    return [unit for unit in units if unit in found]
