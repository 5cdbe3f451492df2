"""One step of a cached engine, native or of plugins, for a profiler to look at:

    ncu --profile-from-start off --metrics gpu__time_duration.sum --csv --log-file kernels.csv \\
        PYTHON -m backends.tensorrt_.one_step .cache/engine/DIGEST BATCH SEQUENCE [.cache/inputs/DIGEST]

PYTHON is the one that interpreter.trt names. The engine runs on the inputs that a cell was measured with at that shape,
so with its lengths, where their folder is given, else on random ids without padding. Its first steps, which load
kernels, lie outside the profiler's range.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from backends.base import Artifact, BuildSpec, Device, Feeds, Shape
from backends.tensorrt_.engine import last_of
from backends.tensorrt_.layout import plugin_layout


def batch(shape: Shape, inputs: Path | None) -> Feeds:
    """A batch of `shape`: that of backends/inputs.py's folder `inputs`, or of random ids where there is none.

    Raises:
        ValueError: the folder has no batch of that shape.
    """
    if inputs is None:
        ids = np.random.default_rng(0).integers(1000, 20000, (shape.batch, shape.sequence), dtype=np.int32)
        return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    with np.load(inputs / "inputs.npz", allow_pickle=False) as arrays:
        held = {name.rpartition("/")[2]: arrays[name] for name in arrays.files if name.startswith(f"{shape}/")}
        if not held:
            shapes = ", ".join(sorted({name.partition("/")[0] for name in arrays.files}))
            raise ValueError(f"{inputs} has no batch of {shape}, only of {shapes}")
    return {name: array for name, array in held.items() if name not in ("reference", "rows")}


def run(entry: Path, shape: Shape, inputs: Path | None = None) -> None:
    """Run the engine in the cache folder `entry` at `shape`, on the inputs in the cache folder `inputs`."""
    from cuda.bindings import runtime

    from backends.cuda import checked
    from backends.tensorrt_.capabilities import installed
    from backends.tensorrt_.several import opening

    recorded = json.loads((entry / "artifact.json").read_text(encoding="utf-8"))
    key = recorded["key"]
    artifact = Artifact(entry / recorded["path"], recorded["sha256"])
    spec = BuildSpec(key["precision"], Device("cuda"), (shape,), False, entry, key["options"])
    longest = max(profile["high"]["sequence"] for profile in key["profiles"])
    native = installed().packed_attention
    layout = plugin_layout(key["options"], longest, native=native) if "arrays" in key else None
    with last_of(opening(spec, artifact, layout)) as session:
        session.load(batch(shape, inputs))
        for _ in range(3):
            session.step()
        session.wait()
        checked(runtime.cudaProfilerStart())
        session.step()
        session.wait()
        checked(runtime.cudaProfilerStop())


if __name__ == "__main__":
    run(Path(sys.argv[1]), Shape(int(sys.argv[2]), int(sys.argv[3])), *map(Path, sys.argv[4:]))
