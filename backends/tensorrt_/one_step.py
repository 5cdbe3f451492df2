"""One step of a cached engine, native or of plugins, for a profiler to look at:

    ncu --profile-from-start off --metrics gpu__time_duration.sum --csv --log-file kernels.csv \\
        PYTHON -m backends.tensorrt_.one_step .cache/engine/DIGEST BATCH SEQUENCE

PYTHON is the one that interpreter.trt names. The engine runs on random ids without padding; its first steps, which load
kernels, lie outside the profiler's range.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from cuda.bindings import runtime

from backends.base import Artifact, BuildSpec, Device, Shape
from backends.cuda import checked
from backends.tensorrt_.engine import last_of
from backends.tensorrt_.layout import plugin_layout
from backends.tensorrt_.several import opening


def run(entry: Path, shape: Shape) -> None:
    """Run the engine in the cache folder `entry` at `shape`."""
    recorded = json.loads((entry / "artifact.json").read_text())
    key = recorded["key"]
    artifact = Artifact(entry / recorded["path"], recorded["sha256"])
    spec = BuildSpec(key["precision"], Device("cuda"), (shape,), False, entry, key["options"])
    ids = np.random.default_rng(0).integers(1000, 20000, (shape.batch, shape.sequence), dtype=np.int32)
    ones = np.ones_like(ids)
    longest = max(profile["high"]["sequence"] for profile in key["profiles"])
    layout = plugin_layout(key["options"]["layout"], longest) if "arrays" in key else None
    with last_of(opening(spec, artifact, layout)) as session:
        session.load({"input_ids": ids, "attention_mask": ones, "token_type_ids": ones * 0})
        for _ in range(3):
            session.step()
        session.wait()
        checked(runtime.cudaProfilerStart())
        session.step()
        session.wait()
        checked(runtime.cudaProfilerStop())


if __name__ == "__main__":
    run(Path(sys.argv[1]), Shape(int(sys.argv[2]), int(sys.argv[3])))
