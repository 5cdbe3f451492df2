"""The launchers of Hydra that can run the cells of a sweep, and the words of a command line that choose one."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from suites.schema.refusals import Refused, first_line, no_such_choice, shortened

GROUP = "hydra/launcher"
SETTINGS = "hydra.launcher."

CONNECT_SECONDS = 10

BASIC = "basic"
"""Hydra's own launcher, which is the default: the cells run in this process, in turns."""


SHORT_FOLDER = "set RAY_TMPDIR to a folder with a short path, such as RAY_TMPDIR=/tmp"
"""Advice for a local Ray whose sockets would have paths of more than 107 bytes."""


@dataclass(frozen=True)
class Launcher:
    """A launcher from PyPI.

    Attributes:
        package: name of its package on PyPI.
        module: module with its class.
        needs: module of the library that it uses.
        same_host: whether all its jobs run on the host of the command.
    """

    package: str
    module: str
    needs: str
    same_host: bool


_SUBMITIT = ("hydra-submitit-launcher", "hydra_plugins.hydra_submitit_launcher.submitit_launcher", "submitit")

LAUNCHERS: Mapping[str, Launcher] = {
    "joblib": Launcher("hydra-joblib-launcher", "hydra_plugins.hydra_joblib_launcher.joblib_launcher", "joblib", True),
    "submitit_local": Launcher(*_SUBMITIT, True),
    "submitit_slurm": Launcher(*_SUBMITIT, False),
    "ray": Launcher("hydra-ray-launcher", "hydra_plugins.hydra_ray_launcher.ray_launcher", "ray", False),
}
"""Launchers by their name in the group hydra/launcher."""


@dataclass(frozen=True)
class Choice:
    """The launcher of a command line.

    Attributes:
        name: a key of `LAUNCHERS`.
        settings: overrides of hydra.launcher, as typed.
    """

    name: str
    settings: tuple[str, ...]


def split_launcher(arguments: Sequence[str]) -> tuple[list[str], Choice | None]:
    """Return the arguments without the words about a launcher, and the launcher; None for Hydra's own.

    Raises:
        Refused: there is no such launcher, a setting is not allowed, or a word is missing.
    """
    names = [word.partition("=")[2] for word in arguments if word.startswith(f"{GROUP}=")]
    settings = [word for word in arguments if word.lstrip("+").startswith(SETTINGS)]
    others = [word for word in arguments if not word.startswith(f"{GROUP}=") and word not in settings]
    name = names[-1] if names else BASIC
    if name == BASIC:
        if settings:
            raise Refused(f"{shortened(settings[0])} is a setting of a launcher; add {GROUP}={'|'.join(LAUNCHERS)}")
        return others, None
    if name not in LAUNCHERS:
        raise Refused(no_such_choice(GROUP, name, (BASIC, *LAUNCHERS)))
    if not {"-m", "--multirun"} & set(arguments):
        raise Refused(f"{GROUP}={name} runs the cells of a sweep; add -m")
    for word in settings:
        _check_setting(word)
    _check_installed(name)
    return others, Choice(name, tuple(settings))


def _check_setting(word: str) -> None:
    key = word.lstrip("+").partition("=")[0].removeprefix(SETTINGS)
    if re.search(r"(^|[.{,\s])_\w+_\s*[:=]?", f"{key}=") or re.search(r"_target_", word):
        raise Refused(f"{shortened(word)} cannot be set here, because Hydra can run the code that it names")
    if key in ("name", "submitit_folder"):
        raise Refused(f"{SETTINGS}{key} is set by the suite, which finds its jobs by it; leave it out")


def _check_installed(name: str) -> None:
    """Check that the packages of a launcher are installed, without importing them.

    Raises:
        Refused: a package is missing.
    """
    launcher = LAUNCHERS[name]
    for module, package in ((launcher.module, launcher.package), (launcher.needs, launcher.needs)):
        try:
            found = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            raise Refused(f"{GROUP}={name} needs {package}, which is not installed; {installation(name)}")


def installation(name: str) -> str:
    """Return how to install a launcher with the library that it uses."""
    return f"run {sys.executable} -m pip install {LAUNCHERS[name].package}"


def import_launcher(name: str) -> None:
    """Import a launcher and its library. Hydra itself only warns about a launcher that cannot be imported.

    Raises:
        Refused: it cannot be imported; the message has the reason.
    """
    launcher = LAUNCHERS[name]
    try:
        importlib.import_module(launcher.needs)
        importlib.import_module(launcher.module)
    except Exception as error:  # a broken package raises any type of error
        raise Refused(f"{GROUP}={name} cannot be imported: {first_line(error)}; {installation(name)}") from None


def check_cluster(choice: Choice) -> None:
    """Check that the address of a Ray cluster answers. Ray itself would try to connect for many minutes.

    Raises:
        Refused: nothing listens at the address.
    """
    typed = [word.partition("=")[2] for word in choice.settings if _key(word) == f"{SETTINGS}ray.init.address"]
    address = (typed[-1] if typed else os.environ.get("RAY_ADDRESS", "")).strip("'\"")
    matched = re.fullmatch(r"(?:ray://)?(.+):(\d+)", address)
    if choice.name != "ray" or not matched:
        return
    try:
        socket.create_connection((matched[1], int(matched[2])), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise Refused(
            f"no Ray cluster answers at {shortened(address)} ({error}); run ray start --head there, or correct "
            "RAY_ADDRESS or hydra.launcher.ray.init.address"
        ) from None


def launcher_settings(choice: Choice, job_name: str) -> list[str]:
    """Return the overrides of Hydra for a launcher: those of the user, and those that it needs to work here."""
    settings = [f"{GROUP}={choice.name}", *choice.settings]
    if choice.name.startswith("submitit"):
        settings.append(f"{SETTINGS}name={job_name}")
    init = f"{SETTINGS}ray.init"
    connects = os.environ.get("RAY_ADDRESS") or any(_key(word) == f"{init}.address" for word in choice.settings)
    if choice.name == "ray" and connects and all(not _key(word).startswith(f"{init}.object") for word in settings):
        # The launcher sets this size by default, and Ray refuses it for a cluster that runs already.
        settings.append(f"+{init}.object_store_memory=null")
    return settings


def _key(word: str) -> str:
    return word.lstrip("+").partition("=")[0]
