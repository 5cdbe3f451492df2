"""How long does a forward pass take at each shape, with and without a CUDA graph?"""

from __future__ import annotations

from suites.latency.result import RESULT
from suites.suite import SuiteDescription

SUITE = SuiteDescription(timed=True, repeats=True, splits_batches=True, result=RESULT)
