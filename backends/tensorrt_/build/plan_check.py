"""Check of a plan in a separate process, which opens the plan and switches to each of its profiles.

In 8.6 Myelin sometimes compiles a graph that it cannot load. If the graph belongs to the first profile, TensorRT
creates no execution context. If it belongs to a later profile, the process ends when it switches to that profile. For
this reason the check must not run in the process that builds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from backends.cuda import CudaStream, use_device
from backends.tensorrt_.runtime.loading import load_plugins, read_plan
from backends.tensorrt_.runtime.log import Log
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi, load_api
from backends.tensorrt_.runtime.tensorrt_options import TensorRTOptions

SECONDS = 300


def find_faults(plan: Path, options: TensorRTOptions, device: int) -> list[str]:
    """Return the errors of a plan that was just built, TensorRT's errors first; empty if every profile opens."""
    arguments = {name: getattr(options, name) for name in ("version_compatible", "plugin_libraries")}
    command = [
        sys.executable,
        "-m",
        "backends.tensorrt_.build.plan_check",
        str(plan),
        json.dumps(arguments),
        str(device),
    ]
    try:
        completed = subprocess.run(
            command, check=False, capture_output=True, encoding="utf-8", errors="replace", timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return [f"it did not open within {SECONDS} s"]
    # For the log of the build: messages of a library that ends the process are in no other file.
    print(completed.stderr, file=sys.stderr, flush=True)
    if completed.returncode == 0:
        return []
    log_lines, profile_lines = completed.stderr.splitlines(), completed.stdout.splitlines()
    errors = [line.removeprefix("ERROR: ") for line in log_lines if line.startswith("ERROR: ")]
    return [*errors, f"{(profile_lines or ['it did not open'])[-1]} ({(log_lines or ['no reason given'])[-1]})"]


def check_profiles(api: TensorRTApi, plan: Path, options: TensorRTOptions, device: int) -> str:
    """Switch one context of the plan to each profile. Return the first failure, or an empty string.

    Each profile is printed before the switch, because the switch may end the process.
    """
    trt = api.trt
    use_device(device)
    log, stream = Log(api), CudaStream(device)
    load_plugins(api, options, log)
    engine = read_plan(api, plan.read_bytes(), options, log)
    context = engine.create_execution_context() if engine is not None else None
    if engine is None or context is None:
        return "there is no execution context"
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    for index in range(engine.num_optimization_profiles):
        print(f"the process ended at profile {index}", flush=True)
        if not context.set_optimization_profile_async(index, int(stream.handle)):
            return f"the context cannot switch to profile {index}"
        for name in inputs:
            _, _, max_sizes = engine.get_tensor_profile_shape(name, index)
            if not context.set_input_shape(name, tuple(max_sizes)):
                return f"{name} does not accept sizes {tuple(max_sizes)} in profile {index}"
        stream.synchronize()
    return ""


if __name__ == "__main__":
    options = TensorRTOptions(**json.loads(sys.argv[2]))
    failure = check_profiles(load_api(), Path(sys.argv[1]), options, int(sys.argv[3]))
    print(failure, flush=True)
    sys.exit(bool(failure))
