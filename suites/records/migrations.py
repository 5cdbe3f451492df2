"""Changes of old layouts of records, one step for each version of the layout.

The layout of version N is that of the field `schema`. To change the layout, raise SCHEMA in suites/records/record.py
and add the step from the version before. Stored files are never changed: they are migrated when they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

Data = Mapping[str, object]


def _to_2(data: Data) -> Data:
    """Version 2 has the maker, the versions of timing and scoring, and the number of each process."""
    added = {"scores": {}, "processes": [], "maker": {}, "harness": 1, "scoring": 1}
    measurements = data.get("measurements")
    numbered = [
        {"process": 0, **measurement} if isinstance(measurement, Mapping) else measurement
        for measurement in (measurements if isinstance(measurements, list) else ())
    ]
    return {**added, **data, **({"measurements": numbered} if numbered else {}), "schema": 2}


STEPS: Mapping[int, Callable[[Data], Data]] = {1: _to_2}
"""The step from each version of the layout to the next one."""


def migrated(data: Data, schema: int) -> Data:
    """Return the data of a record of an old version in the layout of version `schema`."""
    while isinstance(version := data.get("schema"), int) and version < schema:
        data = STEPS[version](data)
    return data
