"""The models that suite=alignment measures besides that of the cell, each with one padded size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from backends.description import SourceKind
from backends.model.families import size_of
from backends.model.padded_weights import EXACT
from backends.registry import describe
from suites.alignment.result import SizeVariant, padded_size
from suites.asking.model_request import local_config
from suites.records.record import UNSUPPORTED
from suites.schema.config import RunConfig
from suites.schema.enums import Weights
from suites.schema.refusals import Refused, no_such_choice

HIDDEN = "hidden_size"

NAMES = (*EXACT, HIDDEN)

NOT_EXACT = "norms average over the hidden size, so trained weights cannot be padded; use weights=random"

UNKNOWN = "the sizes of the model are not known before its download; give its folder as model.path="


def size_variants(config: RunConfig) -> tuple[SizeVariant, ...]:
    """Return a variant for each size and multiple, between two rounds of the model itself; () if no size needs padding.

    The two rounds show how much of a difference is noise. A variant that cannot be measured has the reason.

    Raises:
        Refused: a name is not one of NAMES.
    """
    for name in config.alignment.model_sizes:
        if name not in NAMES:
            raise Refused(no_such_choice("alignment.model_sizes", name, NAMES))
    if describe(config.backend).source is SourceKind.none or not config.alignment.model_sizes:
        return ()
    settings = _settings(config)
    if "model_type" not in settings:
        return tuple(SizeVariant(name, outcome=UNSUPPORTED, reason=UNKNOWN) for name in config.alignment.model_sizes)
    found = {(variant.name, variant.value): variant for variant in _variants(config, settings)}
    if not any(not variant.reason for variant in found.values()):
        return tuple(found.values())
    return (SizeVariant(), *found.values(), SizeVariant())


def _settings(config: RunConfig) -> Mapping[str, object]:
    """Return the contents of config.json, or the settings in conf/ of the hub id; {} if they are not known."""
    model, random = config.model, config.weights is Weights.random
    if random or (not model.path and model.hub in model.names):
        return model.architecture
    return local_config(config)


def _variants(config: RunConfig, settings: Mapping[str, object]) -> Iterator[SizeVariant]:
    for name in dict.fromkeys(config.alignment.model_sizes):
        size = size_of(settings, name)
        for multiple in sorted(set(config.alignment.model_multiples)):
            value = padded_size(size, multiple)
            if value == size:
                continue
            if name in EXACT:
                yield SizeVariant(name, size, value)
                continue
            # Each head has the same number of features.
            value = padded_size(size, math.lcm(multiple, size_of(settings, "num_attention_heads")))
            if config.weights is Weights.random:
                yield SizeVariant(name, size, value, exact=False)
            else:
                yield SizeVariant(name, size, value, False, outcome=UNSUPPORTED, reason=NOT_EXACT)
