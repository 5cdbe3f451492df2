"""The configuration of a cell in a record, so that the pipeline can make its files again.

A cell has the values of all settings that affect its model, but no paths. Words on the command line give the paths.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from backends.base import BuildSpec, Device, Shape
from backends.model_output import Output, resolve_output
from backends.options import SharedKeys
from backends.quantization_options import QuantizationOptions
from backends.registry import describe
from suites.asking.request import Request, resolve
from suites.asking.resolve_options import backend_options
from suites.cli.composing import checked_config, composed
from suites.records.cell import Cell
from suites.records.record import Record
from suites.root import CONF
from suites.schema.config import RunConfig
from suites.schema.refusals import Refused, shortened

NOT_COMPARED = ("threads", "cuda_graph", "marked")
"""Options of a cell that do not change the exported files."""

OTHER_OPTIONS = ("quantization", "pad_to", "output", "pooling", "normalize")
"""Options of a cell that are not options of a backend."""

QUANTIZED = ("int8", "fp8")


def model_words(record: Record, words: Sequence[str]) -> list[str]:
    """Return the words of the command line for the model of a record.

    Raises:
        Refused: the record has no source of the model that another process could use.
    """
    cell = record.cell
    named = [f"model={cell.model}"] if (CONF / "model" / f"{cell.model}.yaml").is_file() else []
    given = {word.partition("=")[0] for word in words}
    origin = record.artifacts.origin
    source: list[str] = []
    if not named and not given & {"model", "model.path", "model.hub"}:
        kind, _, name = origin.partition(" ")
        hub, _, revision = name.partition("@")
        if kind != "hub":
            raise Refused(
                f"the record does not say where the files of the model '{cell.model}' are; add model.path=FOLDER"
            )
        source = [f"model.hub={typed(hub)}", f"model.revision={typed(revision or 'main')}"]
    return [*named, f"model.name={cell.model}", *source]


def sampling_request(record: Record, words: Sequence[str]) -> Request:
    """Return a request for the model of a record on the CPU, which every machine can run.

    Its interpreter is that of the record's backend.
    """
    key = describe(record.cell.backend).interpreter.key
    cell = ["backend=torch_eager", "device=cpu", "precision=fp32", f"backend_interpreter={key}"]
    seed = record.cell.lengths.get("seed", 0)
    return resolve(_config([*model_words(record, words), *cell, *_shape_words(record.cell), f"seed={seed}",
                            *_output_words(record.cell), *words]))  # fmt: skip


def cell_request(record: Record, words: Sequence[str]) -> Request:
    """Return the request of the cell of a record, on this machine.

    Args:
        words: further words of the command line, such as model.path=FOLDER. They replace those of the cell.

    Raises:
        Refused: this machine cannot run the cell, or the request would make other files than the cell.
    """
    base = [*model_words(record, words), *_cell_words(record.cell)]
    first = resolve(_config([*base, *words]))
    # Options are set only where the defaults give another value, because some backends refuse an explicit default.
    request = resolve(_config([*base, *_different_options(record.cell, first.cell["options"]), *words]))
    _check_cell(record, request)
    return request


def engine_spec(record: Record, words: Sequence[str], cache: Path) -> BuildSpec:
    """Return the spec of an engine that was built on a GPU which this machine does not have."""
    cell, gpu = record.cell, record.environment
    base = [*model_words(record, words), *_cell_words(cell)]
    first = backend_options(_config([*base, *words])).for_cell()
    options = backend_options(_config([*base, *_different_options(cell, first), *words]))
    shapes = tuple(Shape(*size) for size in cell.options.get("pad_to") or cell.shapes)
    device = Device("cuda", 0, gpu.gpu or "", gpu.uuid, driver=gpu.driver or "")
    output = resolve_output(Output(cell.output), {})
    return BuildSpec(cell.precision, device, shapes, False, cache, options, output=output)


def _check_cell(record: Record, request: Request) -> None:
    """Check that a request makes the same files as the cell of a record.

    Raises:
        Refused: a setting differs. The message names it.
    """
    cell, now = record.cell, request.cell
    for name in ("backend", "precision", "device"):
        if getattr(cell, name) != now[name]:
            raise Refused(f"the record has {name}={getattr(cell, name)}, but this command has {name}={now[name]}")
    if cell.precision in QUANTIZED and cell.lengths.get("texts") != now["lengths"]["texts"]:
        given = " ".join(word for word in record.command if word.startswith(("task=", "task.path", "task.calibration")))
        raise Refused(
            "the calibration texts of the record are others than those of this command; add the keys of the texts, "
            f"with paths of this machine: {given or 'task.calibration=FILE'}"
        )
    options = json.loads(json.dumps(now["options"]))
    for name, value in cell.options.items():
        if name not in NOT_COMPARED and name in options and options[name] != value:
            raise Refused(
                f"this command cannot repeat the option {name} of the record, {shortened(str(value))}: it has "
                f"{shortened(str(options[name]))}; add the key to this command"
            )


def typed(value: object) -> str:
    """Return a value as Hydra reads it on a command line."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{typed(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return f"[{','.join(map(typed, value))}]"
    return str(value)


def _config(words: Sequence[str]) -> RunConfig:
    # Nothing is written to results=, but it must be a folder that can be written.
    return checked_config(composed([f"results={typed(tempfile.gettempdir())}", *words]))


def _shape_words(cell: Cell) -> list[str]:
    batches, sequences = ({size[axis] for size in cell.shapes} for axis in (0, 1))
    return [f"batch={sorted(batches)}".replace(" ", ""), f"sequence={sorted(sequences)}".replace(" ", "")]


def _cell_words(cell: Cell) -> list[str]:
    lengths = {name: value for name, value in cell.lengths.items() if name in LENGTHS}
    if lengths.get("distribution") == "file":  # the values are in the cell, their file is not
        lengths |= {"distribution": "histogram", "counts": [1] * len(lengths.get("values", ()))}
    pad_to = cell.options.get("pad_to")
    return [
        f"suite={'switching' if pad_to else 'latency'}",
        *([f"switching.pad_to={typed(pad_to)}"] if pad_to else []),
        f"backend={cell.backend}",
        f"precision={cell.precision}",
        f"device={cell.device}",
        f"seed={cell.lengths.get('seed', 0)}",
        *_shape_words(cell),
        *_output_words(cell),
        *(f"lengths.{name}={typed(value)}" for name, value in lengths.items()),
    ]


def _output_words(cell: Cell) -> list[str]:
    """Return words for the output of a cell; it is named also for hidden states, because the default may be another."""
    pooling, normalize = cell.options.get("pooling"), cell.options.get("normalize")
    return [
        f"output={cell.output}",
        *([f"pooling={typed(pooling)}"] if pooling else []),
        *([f"normalize={'on' if normalize else 'off'}"] if normalize is not None else []),
    ]


LENGTHS = ("distribution", "tokens", "low", "mean", "sigma", "values", "counts", "passes", "multiple")
"""Keys of a cell's lengths that have the same name in the group `lengths`."""


def _different_options(cell: Cell, options: Mapping[str, object]) -> list[str]:
    """Return words for the options of a cell that are not those in `options`, which has the options of a request.

    Raises:
        Refused: the cell has an option of an earlier version.
    """
    groups = {item.name: f"{name}." for name, group in describe(cell.backend).groups.items() for item in fields(group)}
    groups |= dict.fromkeys((item.name for item in fields(SharedKeys)), "")
    now, quantization = json.loads(json.dumps(options)), cell.options.get("quantization", {})
    known = {item.name for item in fields(QuantizationOptions)}
    unknown = [f"quantization.{name}" for name in quantization if name not in known]
    unknown += [name for name in cell.options if name not in (*groups, *NOT_COMPARED, *OTHER_OPTIONS)]
    if unknown:
        raise Refused(
            f"the record has the option {unknown[0]}, which this version does not have; measure the cell again, or "
            "export it with the version that wrote the record"
        )
    words = [
        f"{groups[name]}{name}={typed(value)}"
        for name, value in cell.options.items()
        if name in groups and now.get(name) != value and name != "plugin_libraries"  # its paths are not in a cell
    ]
    for name, value in quantization.items():
        if now.get("quantization", {}).get(name) != value:
            switch = "on" if value else "off"  # a cell has it as true or false
            words.append(f"quantization.{name}={switch if name == 'reduce_range' else typed(value)}")
    return words
