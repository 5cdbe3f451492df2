"""The page: one HTML file with its style, scripts, plotting library and data. It loads nothing from a network."""

from __future__ import annotations

import base64
import gzip
import json
import sys
from collections.abc import Sequence
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from suites.cli.output import write_output
from suites.html_report.page_data import page_data
from suites.records.results_folder import MachineFolder
from suites.schema.enums import Rank
from suites.schema.refusals import Refused
from suites.tables.write_tables import print_bad_records

REQUIREMENT = "plotly>=6,<8"
"""The plotting library, as in the extra `report` of pyproject.toml."""

FILE = "report.html"
"""Name of the file in the results folder."""

SCRIPTS = ("elements.js", "filters.js", "plots.js", "lines.js", "charts.js", "roofline.js", "switching.js",
           "serving.js", "start.js")  # fmt: skip
"""Scripts in the order in which the page runs them."""


def write_page(folders: Sequence[MachineFolder], path: Path, rank: Rank = Rank.gpu) -> Path:
    """Write the page of some machines; return its file.

    Raises:
        Refused: plotly is not installed, no record can be used, or the file cannot be written.
    """
    if str(path) == "-":
        raise Refused("--output - is not supported, because the page is for a browser; give a file")
    if path.is_dir():
        raise Refused(f"{path} is a folder; name a file, for example --output {path / FILE}")
    library = plotting_library()
    data = page_data(folders, rank)
    if not data["count"]:
        print_bad_records(folders)
        raise Refused("the folder has no usable records; run cells again, or give another folder")
    write_output("--output", path, page(data, library))
    return path


def plotting_library() -> str:
    """Return the JavaScript of plotly.

    Raises:
        Refused: plotly is not installed.
    """
    if find_spec("plotly") is None:
        raise Refused(
            f"--html needs plotly, which is not installed; run {sys.executable} -m pip install '{REQUIREMENT}'"
        )
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def page(data: object, library: str) -> str:
    """Return the text of the page. Data and library are compressed, and the browser decompresses them."""
    parts = {
        "style": _file("page.css"),
        "library": _packed(library),
        "data": _packed(json.dumps(data, separators=(",", ":"), allow_nan=False)),
        "scripts": "\n".join(map(_file, SCRIPTS)),
    }
    text = _file("page.html")
    for name, content in parts.items():
        text = text.replace(f"[[{name}]]", content)
    return text


def _file(name: str) -> str:
    return resources.files("suites.html_report").joinpath(name).read_text(encoding="utf-8")


def _packed(text: str) -> str:
    """Return text as base64 of gzip. Equal text gives equal bytes."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
