"""Questions, clocks, processes, statistics and records. INFERENCE_SUITES_PATH adds suites of other projects.

`from suites import load_records` reads results; see docs/guides/data_out.md. Each worker imports this package, so it
imports nothing before it is used.
"""

import importlib as _importlib
import os as _os

_PUBLIC = {
    "DataRow": "suites.data_out.data_row",
    "Records": "suites.data_out.loaded_records",
    "Refused": "suites.schema.refusals",
    "load_records": "suites.data_out.loaded_records",
}
"""Public names, each with its module. `__init__.pyi` has their types."""

__all__ = ["DataRow", "Records", "Refused", "load_records"]

__path__ += [
    folder
    for root in filter(None, _os.environ.get("INFERENCE_SUITES_PATH", "").split(_os.pathsep))
    if _os.path.isdir(folder := _os.path.abspath(_os.path.join(root, "suites")))
]


def __getattr__(name: str) -> object:
    """Import a public name when it is used for the first time."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_importlib.import_module(_PUBLIC[name]), name)
