"""The text of --help: the choices of each group from suites/conf/, and keys with the help of the schema."""

from __future__ import annotations

import textwrap
from pathlib import Path

CONF = Path(__file__).resolve().parent / "conf"

USAGE = """\
Compare ways to run a BERT-style model: latency, accuracy and memory.

  python -m suites.run backend=ort precision=int8
  python -m suites.run -m backend=torch_eager,ort precision=fp32,int8
  python -m suites.run -m experiment=demo

-m runs every combination of the values that commas separate. A cell that ran before on this device is reused.
Exit status: 0 all cells are ok or unsupported, 1 a cell failed, 2 the command was refused.

Choose one of each group, as group=choice:

{groups}

Set any key, as key=value. These are the most common keys with their defaults:

{keys}

docs/reference.md explains every key. `--cfg job` prints every key with its value. Other commands have their own --help:
python -m suites.search, .batch, .advise, .report, .process_noise"""

COMMON = (
    "suite.seconds", "model.path", "model.hub", "model.name", "task.path", "task.calibration", "task.tolerance",
    "quantization.placement", "quantization.method", "quantization.smooth", "quantization.qat_steps",
    "quantization.leave_out", "lengths.passes", "layers.chunk", "switching.switch", "switching.trace",
    "switching.pad_to", "trt.min", "trt.opt", "trt.max", "trt.ranges", "trt.contexts", "trt.engines", "trt.memory_mb",
    "trt.optimization_level", "trt.rewrites", "plugin.gelu", "plugin.constraints", "interpreter.trt",
)  # fmt: skip
"""Keys of groups that --help shows, besides all keys without a group."""

WIDTH, COLUMN = 120, 32


def help_text() -> str:
    """The text of `python -m suites.run --help`."""
    return USAGE.format(groups=group_choices(), keys=common_keys())


def group_choices() -> str:
    """One line for each group: its name and its choices that have a file."""
    groups = sorted(folder for folder in CONF.iterdir() if folder.is_dir() and any(folder.glob("*.yaml")))
    return "\n".join(f"  {g.name:<12} {', '.join(sorted(file.stem for file in g.glob('*.yaml')))}" for g in groups)


def common_keys() -> str:
    """Common keys with their defaults, choices and help."""
    from suites.config import RunConfig
    from suites.config_key import keys_of

    lines = []
    for one in sorted(keys_of(RunConfig), key=lambda one: "." in one.name):
        if "." in one.name and one.name not in COMMON:
            continue
        choices = f"{one.type.replace(', ', '|')}. " if ", " in one.type and " of " not in one.type else ""
        text = textwrap.wrap(choices + one.text, WIDTH - COLUMN, break_on_hyphens=False)
        first = f"  {one.name}={one.default}"
        if len(first) >= COLUMN:
            lines.append(first)
            first = ""
        lines += [f"{first:<{COLUMN}}{text[0]}", *(" " * COLUMN + line for line in text[1:])]
    return "\n".join(lines)
