"""Options in committed cells are read by the backends' option classes, and written in the same way again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from conftest import ROOT

from backends.json_codec import NotThisType, from_json
from backends.quantization_options import QuantizationOptions
from backends.registry import describe

OF_THE_SUITE = {
    "cuda_graph",
    "threads",
    "quantization",
    "marked",
    "pad_to",
    "search",
    "profile",
    "output",
    "megabytes",
    "pooling",
    "normalize",
}
"""Options of a cell that are not a backend's own."""

OF_BUILDING = {"builds", "repeats"}
OF_LIMITS = {"load_s", "method", "process_shares", "rate", "shares", "sharing"}
OF_SERVING = {"arrivals", "bound", "graph", "most_requests", "most_tokens", "padded_to", "queue", "shares", "wait_ms",
              "workers"}  # fmt: skip

OF_SUITES = {"building": OF_BUILDING, "limits": OF_LIMITS, "serving": OF_SERVING}

OF_FILES = {"library"}
"""Options of backends that name a file by its content. A cell does not have its path."""

OLDER = 4
"""Records that were made before an option had its present name, or before it was part of the cell."""


def rewritten(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a cell after reading and writing them. Options by value are read by their name."""
    names = {"max-autotune-no-cudagraphs": "max_autotune", True: "on", False: "off"}
    of_suite = OF_THE_SUITE | OF_SUITES.get(cell["suite"], set())
    own = {name: value for name, value in cell["options"].items() if name not in of_suite | OF_FILES}
    if "compile_mode" in own:
        own["compile_mode"] = names.get(own["compile_mode"], own["compile_mode"])
    options = from_json(describe(cell["backend"]).options, own).for_cell()
    if recipe := dict(cell["options"].get("quantization", {})):
        if "reduce_range" in recipe:
            recipe["reduce_range"] = names[recipe["reduce_range"]]
        options["quantization"] = from_json(QuantizationOptions, recipe).for_cell()
    unchanged = of_suite - {"quantization"} | OF_FILES
    return options | {name: cell["options"][name] for name in unchanged & cell["options"].keys()}


def test_cells_of_the_reference_keep_their_options() -> None:
    """The id of a cell is a hash of its options. A changed option would measure every cell again."""
    cells = [json.loads(path.read_text())["cell"] for path in ROOT.glob("results/reference/*/records/**/*.json")]
    differing = []
    for cell in cells:
        try:
            options = rewritten(cell)
        except NotThisType as reason:
            options = {"fault": str(reason)}
        if options != cell["options"]:
            differing.append(options)
    assert len(cells) > 500
    assert len(differing) <= OLDER, differing
