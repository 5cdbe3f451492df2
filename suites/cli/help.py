"""Text of `run --help` and `search --help`: choices of the groups in suites/conf/, and keys with their help."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from suites.cli.groups import choices_of, group_names

USAGE = """\
Measure a BERT-style model on one backend, or with -m each combination of choices, and print the results in one table.

usage: {run} [flags] [group=choice ...] [key=value ...]

flags:
  -m, --multirun               run every combination of the values that commas separate
  -c, --cfg job|hydra|all      print the configuration and run nothing; --resolve also replaces ${{KEY}} by its value
  -p, --package GROUP          print only this group of the configuration, with --cfg
  -i, --info [TOPIC]           print the sources of the configuration and run nothing
  --wide                       print the tables with every column, instead of the short table of 80 columns
  -cd, --config-dir FOLDER     search FOLDER for more files of the groups
  --plan                       print cells, engines, estimated time and memory, and run nothing
  --version                    print the version of Hydra, which reads the configuration
  -h, --help                   show this help

groups and their choices, as group=choice:
{groups}

keys and their defaults, as key=value; these are the most common keys:
{keys}

examples:
  {run} backend=ort precision=int8
  {run} -m backend=torch_eager,ort precision=fp32,int8
  {run} -m experiment=minilm_precisions
  {run} --plan -m experiment=minilm_precisions

Output: a line for each cell, with its outcome and the path of its record, and the tables at the end. Records and tables
are files below the folder of results=.
A cell that was measured before on this device is reused; rerun=true measures it again.
Exit status: 0 all cells are ok or unsupported, 1 a cell failed, 2 the command was refused.
With --plan: 0, or 2 if a cell is refused.
With -m, hydra/launcher=joblib|submitit_local|submitit_slurm|ray runs each cell as a job of that launcher.
docs/reference.md explains every key. `{run} --cfg job` prints every key with its value.
`{program} run` and `python -m suites.run` are the same command. `{program} --help` lists all commands."""

COMMON_KEYS = (
    "suite.seconds", "model.path", "model.hub", "model.name", "task.path", "task.text", "task.label",
    "task.metric", "task.calibration", "task.tolerance",
    "quantization.placement", "quantization.method", "quantization.smooth", "quantization.qat_steps",
    "quantization.leave_out", "lengths.passes", "layers.chunk", "switching.switch", "switching.trace",
    "switching.pad_to",
)  # fmt: skip
"""Keys of the suite's groups that --help shows in addition to keys without a group and options with `in_help`."""

WIDTH, COLUMN, GROUP = 120, 32, 15


def help_text() -> str:
    """Return the text of `run --help`."""
    from suites.cli.command_line import PROGRAM, program

    return USAGE.format(run=program("run"), program=PROGRAM, groups=group_choices(), keys=common_keys())


def group_choices() -> str:
    """Return the choices of each group after its name."""
    lines = []
    for group in group_names():
        text = textwrap.wrap(", ".join(choices_of(group)), WIDTH - GROUP, break_on_hyphens=False) or [""]
        lines += [f"  {name:<{GROUP - 3}} {line}" for name, line in zip([group, *[""] * len(text)], text, strict=False)]
    return "\n".join(lines)


def common_keys() -> str:
    """Return the common keys with their defaults, choices and help: first the keys without a group."""
    from backends.config_key import keys_of
    from suites.schema.run_schema import run_schema

    keys = list(keys_of(run_schema()))
    grouped = [key.name for key in keys if key.name in COMMON_KEYS or key.in_help]
    return key_lines([key.name for key in keys if "." not in key.name] + grouped)


def key_lines(names: Sequence[str]) -> str:
    """Return some keys with their defaults, choices and help."""
    from backends.config_key import keys_of
    from suites.schema.run_schema import run_schema

    keys = {key.name: key for key in keys_of(run_schema())}
    lines = []
    for name in names:
        key = keys[name]
        choices = f"{key.type.replace(', ', '|')}. " if ", " in key.type and " of " not in key.type else ""
        text = textwrap.wrap(choices + key.text, WIDTH - COLUMN, break_on_hyphens=False)
        first = f"  {name}={key.default}"
        if len(first) >= COLUMN:
            lines.append(first)
            first = ""
        lines += [f"{first:<{COLUMN}}{text[0]}", *(" " * COLUMN + line for line in text[1:])]
    return "\n".join(lines)
