"""Write everything that serves the model of a record: `python -m suites.export RECORD DIR`.

DIR gets the ONNX file, OpenVINO's model or the TensorRT plan, the files of the tokenizer and of the pooling,
manifest.json with versions and digests, the expected outputs of three sentences, and verify.py, which checks the folder
with the runtime and numpy alone. Files come from the cache; missing files are exported and built again.
"""

from __future__ import annotations

import suites.cli.dependencies  # noqa: F401  # checks the libraries before the imports below need them

# isort: split
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from suites.asking.user_folders import default_folder
from suites.cli.command_line import CommandParser, overrides
from suites.cli.output import run_with_tolerant_output
from suites.cli.record_command import add_words, run_with_words
from suites.schema.config import RunConfig


def main(arguments: Sequence[str]) -> int:
    """Export a model. Return 0, 1 if a stage failed, or 2 if the command was refused."""
    return run_with_words(_parser(), arguments, _export)


def _parser() -> CommandParser:
    parser = CommandParser(
        "export",
        "Write a folder with everything that serves the model of a record.\n\n"
        "Output: the folder DIR. It has the ONNX file, OpenVINO's model or the TensorRT plan, the tokenizer, the\n"
        "pooling, manifest.json with versions and digests, expected outputs of three sentences, and verify.py, which\n"
        "checks the folder with the runtime and numpy alone. The command prints the names and sizes of the files.\n"
        "Files come from the cache; missing files are exported and built again.\n"
        "Exit status: 0 the folder is written, 1 a stage failed, 2 the command was refused.",
        (
            "minilm-ort-int8-0123456789ab.json served model.path=models/minilm",
            "minilm-ort-int8-0123456789ab served --records results/reference --force",
        ),
    )
    parser.add_argument("record", metavar="RECORD", help="file of a record (.json), or the id of its cell")
    parser.add_argument("folder", metavar="DIR", help="new folder for the files")
    add_words(parser)
    group = parser.add_argument_group("options")
    group.add_argument(
        "--records", metavar="RESULTS", help=f"folder of results with the cell id; default {RunConfig.results}"
    )
    group.add_argument("--force", action="store_true", help="replace an earlier export in DIR; other files stay")
    return parser


def _export(options: argparse.Namespace) -> int:
    from suites.cli import local_settings
    from suites.cli.display import Display
    from suites.exporting.export_cell import CellExport, StageFailed
    from suites.exporting.find_record import check_exportable, find_record
    from suites.exporting.target_folder import target_folder

    target, words = str(options.folder), overrides(options.words)
    record = find_record(options.record, Path(options.records or default_folder("results")))
    check_exportable(record)
    local_settings.register()
    cell = record.cell
    display = Display()
    try:
        with target_folder(target, options.force) as folder, display:
            display.begin(f"{cell.model} {cell.backend} {cell.precision}", stage="export")
            warnings = CellExport(record, words, display.stage).run(folder)
            names = [(path.relative_to(folder), path.stat().st_size) for path in folder.rglob("*") if path.is_file()]
    except StageFailed as error:
        print(str(error), file=sys.stderr)
        return 1
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for name, size in sorted(names):
        print(f"{size:>12,}  {name}")
    print(f"exported to {target}; check it with: python {Path(target) / 'verify.py'}")
    return 0


if __name__ == "__main__":
    sys.exit(run_with_tolerant_output(lambda: main(sys.argv[1:])))
