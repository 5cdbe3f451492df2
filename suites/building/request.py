"""The request of suite=building: the builds to compare."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from backends.base import Shape
from backends.config_key import to_json_types
from backends.description import BackendDescription
from backends.options import Profiles
from backends.registry import describe, descriptions
from suites.asking.suite_request import RequestContext, SuiteRequest
from suites.building.result import BUILT_AGAIN, FIRST, MEASURED_AGAIN, OPTION, PROFILES, SAVED_TIMINGS
from suites.building.suite import BuildingQuestion, Variant
from suites.schema.config import RunConfig
from suites.schema.refusals import Refused, no_such_choice

NO_OPTION = ["none"]
"""Value of building.options that asks for repeated builds and numbers of profiles only."""


def suite_request(context: RequestContext) -> SuiteRequest:
    """The builds differ in one option, or in the number of profiles. All of them have the largest shape.

    Raises:
        Refused: the backend builds no engine, has no such option, or the shapes are too few for the profiles.
    """
    config = context.config
    backend = describe(config.backend)
    if not backend.build_sweep:
        names = [name for name, other in descriptions().items() if other.build_sweep]
        raise Refused(f"backend={backend.name} has no build options to try; use backend={' or '.join(sorted(names))}")
    if config.profiles not in (Profiles.per_shape, Profiles.dynamic):
        raise Refused("suite=building needs profiles=per_shape, or dynamic for one range of shapes")
    base, repeats = context.shapes[-1:], config.building.repeats
    same = [Variant(FIRST, "", base)]
    for kind, count in ((MEASURED_AGAIN, repeats - 1), (BUILT_AGAIN, repeats - 1), (SAVED_TIMINGS, repeats)):
        same += [Variant(kind, "", base)] * count
    others = [*_options(config, backend, base), *_profiles(config, context.shapes)]
    swept = {"repeats": repeats, "builds": [variant.setting for variant in others]}
    return SuiteRequest(context.shapes, context.shapes, BuildingQuestion((*same, *others)), options=swept)


def _options(config: RunConfig, backend: BackendDescription, base: tuple[Shape, ...]) -> Iterator[Variant]:
    """Yield a build for each value of each option that is not the value of the cell.

    Raises:
        Refused: an option has no values to try.
    """
    chosen = config.building.options
    if chosen == NO_OPTION:
        return
    for name in chosen or ():
        if name not in backend.build_sweep:
            raise Refused(no_such_choice("building.options", name, backend.build_sweep))
    for name, values in backend.build_sweep.items():
        if chosen and name not in chosen:
            continue
        group, current = _option(config, backend, name)
        for value in values:
            if value != current:
                yield Variant(OPTION, f"{group}.{name}={_typed(value)}", base, {name: value})


def _option(config: RunConfig, backend: BackendDescription, name: str) -> tuple[str, object]:
    """Return the group of an option on the command line, and its value in this request."""
    for group, kind in backend.groups.items():
        if name in {item.name for item in fields(kind)}:
            return group, to_json_types(getattr(getattr(config, group), name))
    raise KeyError(name)


def _typed(value: object) -> str:
    """Return a value as typed on the command line."""
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value).lower()


def _profiles(config: RunConfig, shapes: tuple[Shape, ...]) -> Iterator[Variant]:
    """Yield a build for each number of profiles; each profile is one of the largest shapes.

    Raises:
        Refused: there are fewer shapes than profiles.
    """
    counts = sorted(set(config.building.profiles) - {1})
    if not counts:
        return
    if config.profiles is not Profiles.per_shape:
        raise Refused("building.profiles needs profiles=per_shape; or leave it out with building.profiles=[]")
    if counts[-1] > len(shapes):
        raise Refused(
            f"building.profiles={counts[-1]} needs as many shapes, but batch= and sequence= give {len(shapes)}; "
            f"give more, such as batch=[1,2,4,8,16,32,64,128], or building.profiles=[{len(shapes)}]"
        )
    for count in counts:
        yield Variant(PROFILES, f"{count} profiles", shapes[-count:])
