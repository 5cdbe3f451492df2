"""Run one step of a cached engine, of backend `trt` or `trt_plugin`, under a profiler:

    ncu --profile-from-start off --metrics gpu__time_duration.sum --csv --log-file kernels.csv \\
        PYTHON -m backends.tensorrt_.profile_step .cache/engine/DIGEST BATCH SEQUENCE [.cache/inputs/DIGEST]

PYTHON is the interpreter that interpreter.trt names. If the folder of a cell's inputs is given, the engine runs on
these inputs at that shape, with their sequence lengths. Otherwise it runs on random ids without padding. The first
steps, which load kernels, are outside the profiler's range.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from backends.base import Artifact, BuildSpec, Device, Feeds, Shape, opened_session
from backends.json_codec import from_json
from backends.profiles import Profile
from backends.tensorrt_.runtime.layout import plugin_layout
from backends.tensorrt_.runtime.tensorrt_options import PluginOptions, TensorRTOptions


def batch(shape: Shape, inputs: Path | None) -> Feeds:
    """Return a batch of `shape`, from the folder `inputs` of backends/inputs/batches.py, or of random ids if it is
    None.

    Raises:
        ValueError: the folder has no batch of that shape.
    """
    if inputs is None:
        ids = np.random.default_rng(0).integers(1000, 20000, (shape.batch, shape.sequence), dtype=np.int32)
        return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    with np.load(inputs / "inputs.npz", allow_pickle=False) as arrays:
        batch_arrays = {name.rpartition("/")[2]: arrays[name] for name in arrays.files if name.startswith(f"{shape}/")}
        if not batch_arrays:
            shapes = ", ".join(sorted({name.partition("/")[0] for name in arrays.files}))
            raise ValueError(f"{inputs} has no batch of {shape}, only of {shapes}")
    return {name: array for name, array in batch_arrays.items() if name not in ("reference", "rows")}


def run(entry: Path, shape: Shape, inputs: Path | None = None) -> None:
    """Run the engine in the cache folder `entry` at `shape`, on the inputs in the cache folder `inputs`."""
    from backends.cuda import profiler_range
    from backends.tensorrt_.runtime.tensorrt_api import load_api
    from backends.tensorrt_.session.open_session import opening

    recorded = json.loads((entry / "artifact.json").read_text(encoding="utf-8"))
    key = recorded["key"]
    artifact = Artifact(entry / recorded["path"], recorded["sha256"])
    options = from_json(PluginOptions if "arrays" in key else TensorRTOptions, key["options"])
    spec = BuildSpec(key["precision"], Device("cuda"), (shape,), False, entry, options)
    api = load_api()
    longest = max(Profile.from_json(profile).max.sequence for profile in key["profiles"])
    native = api.can.packed_attention
    layout = plugin_layout(options, longest, native=native) if isinstance(options, PluginOptions) else None
    with opened_session(opening(api, spec, artifact, layout)) as session:
        session.load(batch(shape, inputs))
        for _ in range(3):
            session.step()
        session.wait()
        with profiler_range():
            session.step()
            session.wait()


if __name__ == "__main__":
    run(Path(sys.argv[1]), Shape(int(sys.argv[2]), int(sys.argv[3])), *map(Path, sys.argv[4:]))
