"""Questions, clocks, processes, statistics and records. INFERENCE_SUITES_PATH adds suites of other projects.

`from suites import load_records` reads results; see docs/guides/data_out.md. Nothing is imported before it is used,
because each worker imports this package.
"""

import importlib as _importlib
import os as _os
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from suites.data_out.data_row import DataRow as DataRow
    from suites.data_out.loaded_records import Records as Records
    from suites.data_out.loaded_records import load_records as load_records
    from suites.schema.refusals import Refused as Refused

_PUBLIC = {
    "DataRow": "suites.data_out.data_row",
    "Records": "suites.data_out.loaded_records",
    "Refused": "suites.schema.refusals",
    "load_records": "suites.data_out.loaded_records",
}
"""Public names, each with its module."""

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
