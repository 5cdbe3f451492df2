"""A finding about this machine: one line of a diagnosis. Needs CPython 3.10 and the standard library only."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, MISSING = "ok", "warning", "missing"


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        name: the part of the machine that was checked.
        status: OK, WARNING, or MISSING if something cannot run without it. A backend with a missing finding cannot run
            on the device.
        text: one line: the version, the size, or the fault.
        fix: a command that corrects the fault; "" if there is none.
    """

    name: str
    status: str
    text: str
    fix: str = ""
