"""List the names of the installed TensorRT, in the format of the files in this folder:

    PYTHON tests/tensorrt_api/make.py > tests/tensorrt_api/RELEASE.txt

PYTHON is an interpreter with TensorRT; CPython 3.10 is enough. No GPU is needed. A release whose Python module has
another name needs that name: `make.py tensorrt_rtx`.

Each line is "NAME: ATTRIBUTES". The names are those of the compiled module, without the helpers that the package adds
in Python. Attributes of an enum are its members in their order; attributes of a class are sorted. Functions and other
objects have none.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any


def api_lines(module: Any) -> Iterator[str]:
    """Yield one line for each public name of `module`, sorted by name."""
    for name in sorted(public_names(module)):
        yield f"{name}: {', '.join(attributes(getattr(module, name)))}".rstrip()


def public_names(owner: Any) -> list[str]:
    return [name for name in dir(owner) if not name.startswith("_")]


def attributes(item: Any) -> list[str]:
    """Return the members of an enum, the public attributes of another class, and nothing for any other object."""
    if not isinstance(item, type):
        return []
    return list(getattr(item, "__members__", None) or sorted(public_names(item)))


def compiled_module(package: Any) -> Any:
    """Return the module that defines the classes of `package`, which itself may add names in Python."""
    return sys.modules[package.Builder.__module__]


if __name__ == "__main__":
    package = importlib.import_module(sys.argv[1] if len(sys.argv) > 1 else "tensorrt")
    sys.stdout.writelines(f"{line}\n" for line in api_lines(compiled_module(package)))
