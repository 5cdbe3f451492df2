"""Configuration of transformers for an architecture that a user describes in `model.architecture`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from backends.base import Unavailable
from backends.model.families import FAMILIES


def configuration_of(architecture: Mapping[str, object]) -> object:
    """Return the configuration (a PretrainedConfig) of an architecture.

    Args:
        architecture: model_type and settings of this family.

    Raises:
        Unavailable: transformers does not have the family, or the family does not have a setting. transformers itself
            would ignore such a setting silently and use the default.
    """
    from transformers import AutoConfig

    settings = dict(architecture)
    family = str(settings.pop("model_type", ""))
    try:
        default = AutoConfig.for_model(family)
    except ValueError:
        raise Unavailable(f"model.architecture.model_type={family} is not a model type of transformers") from None
    more = FAMILIES[family].more_settings if family in FAMILIES else ()
    valid = {"num_labels", *default.to_dict(), *(getattr(default, "attribute_map", None) or {}), *more}
    for name in settings:
        if name not in valid:
            close = difflib.get_close_matches(name, sorted(valid), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise Unavailable(f"model.architecture.{name} is not a setting of {family}{hint}")
    return AutoConfig.for_model(family, **settings)
