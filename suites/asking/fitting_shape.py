"""Search for a small sufficient set with few tests: bisection, then a greedy pass that removes units one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def minimal_set(units: Sequence[str], enough: Callable[[frozenset[str]], bool]) -> list[str] | None:
    """Return a minimal set of units for which `enough` is true, in their order; None if it is false for all units.

    If adding units never makes a set insufficient, about 2 k log2(n / k) + 2 k tests find k of n units (QuickXplain:
    Junker, AAAI 2004). Otherwise the greedy pass still returns a sufficient set. A set may be tested twice.
    """

    def test(chosen: Sequence[str]) -> bool:
        return enough(frozenset(chosen))

    def needed(base: list[str], changed: bool, candidates: list[str]) -> list[str]:
        """Return the candidates that are needed in addition to `base`; `changed` if `base` was not tested yet."""
        if changed and test(base):
            return []
        if len(candidates) == 1:
            return candidates
        half = len(candidates) // 2
        first, second = candidates[:half], candidates[half:]
        of_second = needed(base + first, True, second)
        of_first = needed(base + of_second, bool(of_second), first)
        return of_first + of_second

    if test([]):
        return []
    if not test(units):
        return None
    chosen_units = needed([], False, list(units))
    if not test(chosen_units):
        chosen_units = list(units)
    for unit in list(chosen_units):
        without_unit = [other for other in chosen_units if other != unit]
        if test(without_unit):
            chosen_units = without_unit
    return [unit for unit in units if unit in chosen_units]
