"""Compose a configuration with Hydra so that no file and no argument can make it run code."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from suites.checks import Refused, did_you_mean

OWN_PARTS = {
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
}
"""What Hydra's own node may name to be made: its launcher and its sweeper."""

LOGGING = {"handlers", "formatters", "filters", "loggers"}
"""Parts of a logging configuration that name classes, which Python would import and call."""


@functools.cache
def install() -> None:
    """Have every configuration checked between its composition and its use, also each one of a sweep.

    Hydra imports and calls what callbacks and logging configurations name before a cell begins, so that a check of the
    cell's own configuration would come too late.
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
    """
    Args:
        hydra: Hydra's own node of a composed configuration.

    Raises:
        Refused: a file set something there that Hydra would import or hand to every process.
    """
    from omegaconf import OmegaConf

    node: Any = OmegaConf.to_container(hydra, resolve=False)
    logging = [node.get("job_logging") or {}, node.get("hydra_logging") or {}]
    wrong = [f"hydra.{name}" for name in ("callbacks", "searchpath") if node.get(name)]
    wrong += ["hydra.job.env_set"] if node.get("job", {}).get("env_set") else []
    wrong += [f"hydra.{value}" for value in _targets(node) if value not in OWN_PARTS]
    wrong += [
        "hydra.job_logging" for part in logging if LOGGING & set(part) or (part.get("root") or {}).get("handlers")
    ]
    if wrong:
        raise Refused(f"a configuration file sets {wrong[0]}, by which Hydra would run code; remove it from the file")


def _targets(node: Any) -> Iterator[str]:
    """All values of keys _target_ in nested containers."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "_target_":
                yield str(value)
            yield from _targets(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _targets(value)


def _check_interpreter(loader: Any, hydra: Any) -> None:
    """
    Raises:
        Refused: an interpreter was chosen that no file stands for. The group is optional, as its default file may be
            missing, so that Hydra leaves a missing choice out without a word.
    """
    chosen, known = hydra.runtime.choices.get("interpreter"), sorted(loader.get_group_options("interpreter"))
    asked = any(str(word).lstrip("+").startswith("interpreter=") for word in hydra.overrides.task)
    if asked and chosen is not None and chosen not in known:
        hint = did_you_mean(str(chosen), known)
        raise Refused(f"there is no interpreter={chosen}; {hint}choices: {', '.join(known)}")
