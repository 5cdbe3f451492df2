"""Options of the null backend: its behaviour and costs, see backends/null_/null.py."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum

from backends.config_key import key
from backends.options import BackendOptions, SharedKeys
from backends.value_checks import Refused, at_least, positive

Behaviour = Enum(
    "Behaviour", ["ok", "raise", "abort", "hang", "exit", "nonfinite", "garbage", "unsupported", "unavailable"]
)


COSTS_OF_SHAPES = ("step_ms", "gpu_ms", "python_ms", "capture_ms")
"""Costs that `other` may give for a shape."""

COSTS_OF_CHANGES = ("shape_ms", "first_ms", "first_gpu_ms")
"""Costs that `other` may give for a shape, and for an ordered pair of shapes."""

SHAPE = r"[1-9]\d*x[1-9]\d*"


@dataclass
class NullOptions(BackendOptions):
    """Behaviour and costs of the null backend, which runs no model."""

    behaviour: Behaviour = key(Behaviour.ok, "Outcome that the null backend produces.")
    step_ms: float = key(1.0, "Host time of a step.")
    gpu_ms: float = key(0.0, "Device time of a step on a simulated GPU. 0: no simulated GPU.")
    copy_ms: float = key(0.0, "Time to copy the inputs.")
    shape_ms: float = key(0.0, "Host time to prepare another shape.")
    profile_ms: float = key(0.0, "Extra host time to prepare a shape of another profile.")
    first_ms: float = key(0.0, "Extra host time of the first step after a change of shape.")
    first_gpu_ms: float = key(0.0, "Extra device time of the first step after a change of shape.")
    cold_ms: float = key(0.0, "Extra host time of the first step of a shape in a process.")
    capture_ms: float = key(0.0, "Host time to capture a CUDA graph.")
    other: dict[str, float] = key(
        {}, "Costs of one shape or of one ordered pair of shapes, such as {shape_ms 1x16 2x16: 0.5}."
    )
    profile_of: dict[str, int] = key({}, "Profile number of a shape, such as {2x16: 1}. Other shapes have profile 0.")
    python_ms: float = key(0.0, "Part of null.step_ms outside of the simulated library call.", added_later=True)
    untuned: float = key(
        1.0,
        "Factor on null.gpu_ms on a share of the simulated GPU that the model was not built for.",
        added_later=True,
    )
    process_factors: list[float] = key([], "Factors on all costs, one for each process in turn.", added_later=True)

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.name.endswith("_ms"):
                at_least(f"null.{item.name}", getattr(self, item.name), 0)
        for name, cost in self.other.items():
            _check_name(name)
            at_least(f"null.other.{name}", cost, 0)

        for name in self.profile_of:
            if not re.fullmatch(SHAPE, name):
                raise Refused(f"null.profile_of.{name} is not a shape; write it as batch and sequence, such as 2x16")

    @classmethod
    def resolved(cls, shared: SharedKeys, groups: Mapping[str, object]) -> NullOptions:
        options = super().resolved(shared, groups)
        positive("null.untuned", options.untuned)
        for factor in options.process_factors:
            positive("null.process_factors", factor)
        return options

    def has_graphs(self, device_kind: str) -> bool:
        return device_kind == "cuda" or self.gpu_ms > 0


def _check_name(name: str) -> None:
    """Check the name of an entry of `other`.

    Raises:
        Refused: it is not the name of a cost with one shape, or with two shapes for a change.
    """
    cost, *shapes = name.split(" ")
    most = {**dict.fromkeys(COSTS_OF_SHAPES, 1), **dict.fromkeys(COSTS_OF_CHANGES, 2)}.get(cost, 0)
    if not 1 <= len(shapes) <= most or not all(re.fullmatch(SHAPE, shape) for shape in shapes):
        raise Refused(
            f"null.other has no cost {name!r}; write a cost and a shape, such as 'step_ms 2x16', with "
            f"{', '.join((*COSTS_OF_SHAPES, *COSTS_OF_CHANGES))}; {', '.join(COSTS_OF_CHANGES)} also take two shapes"
        )
