"""An architecture that a user describes key by key, as transformers' configuration."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from backends.base import Unavailable


def configuration_of(architecture: Mapping[str, Any]) -> Any:
    """
    Args:
        architecture: model_type and settings of that family.

    Raises:
        Unavailable: transformers has no such family, or the family has no such setting: transformers would keep it
            without a word, and run with the default.
    """
    from transformers import AutoConfig

    settings = dict(architecture)
    family = settings.pop("model_type", "")
    try:
        default = AutoConfig.for_model(family)
    except ValueError:
        raise Unavailable(f"model.architecture.model_type={family} is not one of transformers' families") from None
    known = {*default.to_dict(), *(getattr(default, "attribute_map", None) or {})}
    for name in settings:
        if name not in known:
            close = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise Unavailable(f"model.architecture.{name} is no setting of {family}{hint}")
    return AutoConfig.for_model(family, **settings)
