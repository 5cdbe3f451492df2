"""Write a model repository of Triton Inference Server for a record: `python -m suites.deploy RECORD REPOSITORY`.

With --server container, the server of NVIDIA's container runs the TensorRT plan, the ONNX file or OpenVINO's model
itself. With --server python, any server with the Python backend runs the session of the suite: texts or token ids in,
embeddings, labels or scores out.
"""

from __future__ import annotations

import suites.cli.dependencies  # noqa: F401  # checks the libraries before the imports below need them

# isort: split
import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from suites.asking.user_folders import default_folder
from suites.cli.command_line import CommandParser, overrides
from suites.cli.output import run_with_tolerant_output
from suites.cli.record_command import add_words, run_with_words
from suites.schema.config import RunConfig
from suites.schema.refusals import Refused, between, shortened

if TYPE_CHECKING:
    from suites.deploying.write_repository import RepositoryModel
    from suites.records.record import Record

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def main(arguments: Sequence[str]) -> int:
    """Write the files. Return 0, 1 if a stage failed, or 2 if the command was refused."""
    return run_with_words(_parser(), arguments, _deploy)


def _parser() -> CommandParser:
    parser = CommandParser(
        "deploy",
        "Write a model repository of Triton Inference Server for the model of a record.\n\n"
        "With --server container, the server of NVIDIA's container runs the TensorRT plan, the ONNX file or\n"
        "OpenVINO's model itself. Requests are token ids.\n"
        "With --server python, any server with the Python backend runs the session of the suite. Requests are texts\n"
        "or token ids, and answers are embeddings, labels or scores. Its Python needs numpy, the library of the\n"
        "backend and, for texts, tokenizers.\n"
        "Files come from the cache; missing files are exported and built again.\n"
        "Output: the folder REPOSITORY/NAME with config.pbtxt, the model and manifest.json. The command prints its\n"
        "path, the rules of batches, and the command that starts the server.\n"
        "Exit status: 0 the model is written, 1 a stage failed, 2 the command was refused.",
        (
            "minilm-ort-int8-0123456789ab.json repository model.path=models/minilm",
            "minilm-ort-fp32-371a1682cf3b repository --records results/reference --max-queue-delay-us 2000 --force",
        ),
    )
    parser.add_argument("record", metavar="RECORD", help="file of a record (.json), or the id of its cell")
    parser.add_argument("repository", metavar="REPOSITORY", help="folder of the repository; it may have other models")
    add_words(parser)
    group = parser.add_argument_group("options")
    group.add_argument("--server", choices=("auto", "container", "python"), default="auto",
                       help="server that runs the model; default auto: container for a GPU model that Triton itself "
                       "can run, else python")  # fmt: skip
    group.add_argument("--name", metavar="NAME", help="name of the model; default MODEL-BACKEND-PRECISION")
    group.add_argument("--max-queue-delay-us", type=int, metavar="N",
                       help="longest time in microseconds that a request waits for others; default: the wait of the "
                       "best record of suite=serving for this model, else 1000")  # fmt: skip
    group.add_argument("--instances", type=int, metavar="N", help="copies of the model; default: as in that record")
    group.add_argument("--pad-to", choices=("longest", "built"),
                       help="shape of a batch of --server python: padded to its longest request, or the smallest "
                       "built shape; default: as in that record, else by backend")  # fmt: skip
    group.add_argument(
        "--records", metavar="RESULTS", help=f"folder of results with the records; default {RunConfig.results}"
    )
    group.add_argument("--force", action="store_true", help="replace an earlier model of this name")
    return parser


def _deploy(options: argparse.Namespace) -> int:
    from suites.cli import local_settings
    from suites.cli.display import Display
    from suites.exporting.export_cell import StageFailed
    from suites.exporting.find_record import find_record
    from suites.exporting.target_folder import target_folder

    record = find_record(options.record, Path(options.records or default_folder("results")))
    local_settings.register()
    cell, display = record.cell, Display()
    model = _model(record, options, display)
    target = Path(str(options.repository)) / model.name
    try:
        with target_folder(str(target), options.force, "REPOSITORY/MODEL") as folder, display:
            display.begin(f"{cell.model} {cell.backend} {cell.precision}", stage="export")
            warnings = model.write(folder)
    except StageFailed as error:
        print(str(error), file=sys.stderr)
        return 1
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(_summary(model, target))
    return 0


def _model(record: Record, options: argparse.Namespace, display: object) -> RepositoryModel:
    """Return the model to write.

    Raises:
        Refused: the record has no model to serve, or an option does not fit.
    """
    from suites.cli.display import Display
    from suites.deploying.batching_rules import rules_for
    from suites.deploying.write_repository import RepositoryModel, chosen_server

    assert isinstance(display, Display)
    server = chosen_server(record, options.server)
    rules = rules_for(record, Path(options.records or default_folder("results")))
    if options.max_queue_delay_us is not None:
        between("--max-queue-delay-us", options.max_queue_delay_us, 0, 10_000_000)
        rules = replace(rules, delay_us=options.max_queue_delay_us, source="--max-queue-delay-us")
    if options.instances is not None:
        between("--instances", options.instances, 1, 64)
        rules = replace(rules, instances=options.instances)
    if options.pad_to:
        rules = replace(rules, pads_to_built=options.pad_to == "built")
    cell = record.cell
    name = options.name or re.sub("[^A-Za-z0-9_.-]", "_", f"{cell.model}-{cell.backend}-{cell.precision}")
    if not NAME.fullmatch(name):
        raise Refused(f"--name {shortened(name)} must have letters, digits, points, underscores and hyphens only")
    return RepositoryModel(record, name, server, rules, overrides(options.words), display.stage)


def _summary(model: RepositoryModel, target: Path) -> str:
    """Return the result in words."""
    rules, batching = model.rules, model.batching
    wait = f"batches of up to {model.largest}, wait {rules.delay_us:,} us" if batching else "one request at a time"
    source = f"{rules.source}" if rules.source.startswith(("default", "--")) else f"as in the record {rules.source}"
    instances = f"{rules.instances} instance{'' if rules.instances == 1 else 's'}"
    return (
        f"deployed to {target} for --server {model.server}\n"
        f"{wait} ({source}), {instances}\n"
        f"start it with: tritonserver --model-repository={target.parent} --http-address=127.0.0.1 "
        "--grpc-address=127.0.0.1"
    )


if __name__ == "__main__":
    sys.exit(run_with_tolerant_output(lambda: main(sys.argv[1:])))
