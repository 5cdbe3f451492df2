"""How long does the host take to enqueue a step, how much of it is Python, and how long does the GPU wait for it?"""

from __future__ import annotations

from suites.launch.result import RESULT
from suites.suite import SuiteDescription

SUITE = SuiteDescription(
    timed=True,
    result=RESULT,
    settings={"warm_up_s": 1.0, "seconds": 0.5, "max_samples": 500},
)
