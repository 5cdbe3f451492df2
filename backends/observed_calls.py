"""Calls of a library that a clock observes. Needs CPython 3.10 and the standard library alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

Around = Callable[[Callable[[], object]], object]
"""Function that makes a call and returns its result."""


class ObservedMethod:
    """Substitute for an object. It makes each call of one method through `around`, and has all other attributes."""

    def __init__(self, target: object, name: str, around: Around) -> None:
        method = getattr(target, name)

        def observed(*arguments: object) -> object:
            return around(partial(method, *arguments))

        self._target = target
        setattr(self, name, observed)

    def __getattr__(self, name: str) -> object:
        return getattr(self._target, name)
