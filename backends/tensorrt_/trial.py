"""A plan opened and taken to each of its profiles, in a process of its own.

Myelin in 8.6 now and then compiles a graph that it cannot load. Of the first profile that leaves no execution context;
of a later one it ends the process which goes there, and must not be the one that builds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SECONDS = 300


def faults(plan: Path, options: Mapping[str, Any], device: int) -> list[str]:
    """What is wrong with a plan that was just built, TensorRT's errors first; empty if every profile opens."""
    told = {name: options[name] for name in ("version_compatible", "plugin_libraries")}
    command = [sys.executable, "-m", "backends.tensorrt_.trial", str(plan), json.dumps({**told, "device": device})]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, encoding="utf-8", errors="replace", timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return [f"it did not open within {SECONDS} s"]
    # For the log of whoever builds: what a library printed before it ended the process stands nowhere else.
    print(done.stderr, file=sys.stderr, flush=True)
    if done.returncode == 0:
        return []
    said, entered = done.stderr.splitlines(), done.stdout.splitlines()
    errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")]
    return [*errors, f"{(entered or ['it did not open'])[-1]} ({(said or ['no reason given'])[-1]})"]


def visit(plan: Path, options: Mapping[str, Any]) -> str:
    """The profile that one context of the plan cannot be taken to, and why; empty if there is none.

    Each is said before it is entered, for there the process may end.
    """
    import tensorrt as trt

    from backends.cuda import CudaStream, use_device
    from backends.tensorrt_.loading import load_plugins, read_plan
    from backends.tensorrt_.log import Log

    use_device(options["device"])
    log, stream = Log(), CudaStream(options["device"])
    load_plugins(options, log)
    engine = read_plan(plan.read_bytes(), options, log)
    context = engine.create_execution_context() if engine is not None else None
    if context is None:
        return "there is no execution context"
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    for index in range(engine.num_optimization_profiles):
        print(f"it ended at profile {index}", flush=True)
        if not context.set_optimization_profile_async(index, int(stream.handle)):
            return f"the context does not go to profile {index}"
        for name in inputs:
            _, _, largest = engine.get_tensor_profile_shape(name, index)
            if not context.set_input_shape(name, tuple(largest)):
                return f"{name} does not take {tuple(largest)} in profile {index}"
        stream.synchronize()
    return ""


if __name__ == "__main__":
    wrong = visit(Path(sys.argv[1]), json.loads(sys.argv[2]))
    print(wrong, flush=True)
    sys.exit(bool(wrong))
