"""Check each composed configuration so that no file and no argument can make Hydra run code."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from suites.schema.refusals import Refused, did_you_mean

OWN_PARTS = {
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
}
"""Classes that Hydra's own settings may name: its launcher and its sweeper."""

LOGGING = {"handlers", "formatters", "filters", "loggers"}
"""Parts of a logging configuration that name classes. Python would import and call them."""


@functools.cache
def install() -> None:
    """Make Hydra check each configuration after its composition and before its use, also in a sweep.

    Hydra imports and calls the classes of callbacks and logging configurations before a cell starts. Therefore a check
    of the configuration of the cell would be too late.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    load = ConfigLoaderImpl.load_configuration

    @functools.wraps(load)
    def checked(self: Any, *arguments: Any, **named: Any) -> Any:
        config = load(self, *arguments, **named)
        check_no_code(config.hydra)
        _check_interpreter(self, config.hydra)
        return config

    ConfigLoaderImpl.load_configuration = checked  # type: ignore[method-assign]


def check_no_code(hydra: Mapping[str, Any]) -> None:
    """Check that no file changed settings of Hydra that run code.

    Args:
        hydra: The settings `hydra` of a composed configuration.

    Raises:
        Refused: A file set a key whose value Hydra would import, or would give to every process.
    """
    from omegaconf import OmegaConf

    settings: Any = OmegaConf.to_container(hydra, resolve=False)
    logging = [settings.get("job_logging") or {}, settings.get("hydra_logging") or {}]
    forbidden = [f"hydra.{name}" for name in ("callbacks", "searchpath") if settings.get(name)]
    forbidden += ["hydra.job.env_set"] if settings.get("job", {}).get("env_set") else []
    forbidden += [f"hydra.{value}" for value in _targets(settings) if value not in OWN_PARTS]
    forbidden += [
        "hydra.job_logging" for part in logging if LOGGING & set(part) or (part.get("root") or {}).get("handlers")
    ]
    if forbidden:
        raise Refused(f"a configuration file sets {forbidden[0]}, which can run code; remove it from the file")


def _targets(node: Any) -> Iterator[str]:
    """Yield the values of all keys _target_ in nested containers."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "_target_":
                yield str(value)
            yield from _targets(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _targets(value)


def _check_interpreter(loader: Any, hydra: Any) -> None:
    """Check that the chosen interpreter has a file.

    The group is optional because its default file may be missing. Therefore Hydra ignores a missing choice.

    Raises:
        Refused: The chosen interpreter has no file.
    """
    chosen, choices = hydra.runtime.choices.get("interpreter"), sorted(loader.get_group_options("interpreter"))
    requested = any(str(word).lstrip("+").startswith("interpreter=") for word in hydra.overrides.task)
    if requested and chosen is not None and chosen not in choices:
        hint = did_you_mean(str(chosen), choices)
        raise Refused(f"there is no interpreter={chosen}; {hint}choices: {', '.join(choices)}")
