"""Check each composed configuration: it has only keys of the schema, and cannot make Hydra run code."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from suites.schema.config import RunConfig
from suites.schema.config_types import check_types
from suites.schema.refusals import Refused, did_you_mean
from suites.schema.run_schema import run_schema

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from hydra.core.config_loader import ConfigLoader
    from omegaconf import DictConfig

    GetMode = Callable[[Hydra, str | None, list[str]], object]

P = ParamSpec("P")
Loader = TypeVar("Loader", bound="ConfigLoader")

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
    from hydra._internal.hydra import Hydra

    load = ConfigLoaderImpl.load_configuration
    ConfigLoaderImpl.load_configuration = _checking(load)  # type: ignore[method-assign, assignment]  # replaced at run time
    Hydra.get_mode = _reading_mode(Hydra.get_mode)  # type: ignore[method-assign, assignment]  # replaced at run time


def _reading_mode(get_mode: GetMode) -> GetMode:
    """Return a method that reads hydra.mode only if a file can set it.

    Hydra composes a configuration to read this key, and composes it again to run the cell. No file of the project sets
    the key and no override may, so only a file of --config-dir can.
    """

    def mode(self: Hydra, config_name: str | None, overrides: list[str]) -> object:
        folders = self.config_loader.get_search_path().get_path()
        given = any(folder.provider == "command-line" for folder in folders)
        return get_mode(self, config_name, overrides) if given else None

    return mode


def _checking(load: Callable[Concatenate[Loader, P], DictConfig]) -> Callable[Concatenate[Loader, P], DictConfig]:
    """Return a method of a loader that loads a configuration and checks it."""

    @functools.wraps(load)
    def checked(self: Loader, /, *arguments: P.args, **named: P.kwargs) -> DictConfig:
        config = load(self, *arguments, **named)
        check_no_code(config.hydra)
        _check_interpreter(self, config.hydra)
        return config

    return checked


def check_no_code(hydra: DictConfig) -> None:
    """Check that no file changed settings of Hydra that run code.

    Args:
        hydra: The settings `hydra` of a composed configuration.

    Raises:
        Refused: A file set a key whose value Hydra would import, or would give to every process.
    """
    from omegaconf import OmegaConf

    settings = OmegaConf.to_container(hydra, resolve=False)
    assert isinstance(settings, dict)
    logging = [settings.get("job_logging") or {}, settings.get("hydra_logging") or {}]
    forbidden = [f"hydra.{name}" for name in ("callbacks", "searchpath") if settings.get(name)]
    forbidden += ["hydra.job.env_set"] if settings.get("job", {}).get("env_set") else []
    forbidden += [f"hydra.{value}" for value in _targets(settings) if value not in OWN_PARTS]
    forbidden += [
        "hydra.job_logging" for part in logging if LOGGING & set(part) or (part.get("root") or {}).get("handlers")
    ]
    if forbidden:
        raise Refused(f"a configuration file sets {forbidden[0]}, which can run code; remove it from the file")


def _targets(node: object) -> Iterator[str]:
    """Yield the values of all keys _target_ in nested containers."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "_target_":
                yield str(value)
            yield from _targets(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _targets(value)


def _check_interpreter(loader: ConfigLoader, hydra: DictConfig) -> None:
    """Check that the chosen interpreter has a file.

    The group is optional because its default file may be missing. Therefore Hydra ignores a missing choice.

    Raises:
        Refused: The chosen interpreter has no file.
    """
    chosen = hydra.runtime.choices.get("interpreter")
    requested = any(str(word).lstrip("+").startswith("interpreter=") for word in hydra.overrides.task)
    if not requested or chosen is None:
        return
    choices = sorted(loader.get_group_options("interpreter"))
    if chosen not in choices:
        hint = did_you_mean(str(chosen), choices)
        raise Refused(f"there is no interpreter={chosen}; {hint}choices: {', '.join(choices)}")


def composed(overrides: Sequence[str]) -> DictConfig:
    """Return the configuration of a command line without Hydra's flags.

    Raises:
        Refused: Hydra cannot compose it.
    """
    from hydra import compose, initialize_config_dir

    from suites.cli import hydra_errors
    from suites.root import CONF

    install()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            return compose("run", overrides=list(overrides))
        except Refused:
            raise
        except hydra_errors.composition_errors():
            raise
        except Exception as error:  # Hydra raises many types of errors
            raise Refused(hydra_errors.unexplained(error, list(overrides))) from error


def checked_config(config: DictConfig) -> RunConfig:
    """Convert a composed configuration to an object of the schema.

    Raises:
        Refused: The configuration has a key or a type that is not in the schema.
    """
    from omegaconf import OmegaConf

    from suites.cli.hydra_errors import composition_errors, explain, unknown_key
    from suites.cli.schema_keys import keys_not_in_schema

    if added := keys_not_in_schema(config, run_schema()):
        raise Refused(unknown_key(added[0]))
    try:
        run_config = OmegaConf.to_object(config)
    except composition_errors() as error:
        raise Refused(explain(error)) from None
    if not isinstance(run_config, RunConfig):
        raise Refused("a file named schema.yaml replaces the project's schema; rename it")
    check_types(run_config)
    return run_config


def check_architecture(config: RunConfig) -> None:
    """Refuse keys of model.architecture on the command line if the weights are trained."""
    from hydra.core.hydra_config import HydraConfig

    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    keys = [word.lstrip("+~").partition("=")[0] for word in given]
    architecture_keys = [name for name in keys if name.startswith("model.architecture.")]
    if architecture_keys and config.weights.name != "random":
        raise Refused(
            f"{architecture_keys[0]} is read with weights=random only; trained weights have their own config.json"
        )
