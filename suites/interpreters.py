"""Check the path of an interpreter before a worker is started with it."""

from __future__ import annotations

import os
import shutil

from suites.checks import Refused


def interpreter_path(key: str, given: str) -> str:
    """The absolute path of a program. A relative path is relative to the current folder; a bare name is looked up in
    PATH. Links are kept, because a virtual environment is found by the link to its Python.

    Raises:
        Refused: it is missing, a folder, or a file that cannot be executed.
    """
    advice = f"set {key} to a Python with numpy, on the command line or in inference-suites.yaml"
    try:
        path = given if "/" in given else shutil.which(given) or os.path.abspath(given)
        path = os.path.abspath(path)
        if os.path.isdir(path):
            raise Refused(f"{key}={given} is a folder, no executable Python; give the path of the program in it")
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            raise Refused(f"{key}={given} is no executable Python: there is no such file; {advice}") from None
        if not (os.path.isfile(path) and os.access(path, os.X_OK)):
            raise Refused(f"{key}={given} is no executable Python: the file may not be executed; {advice}")
    except (OSError, ValueError) as error:
        raise Refused(f"{key}={given!r} is no executable Python ({error}); {advice}") from None
    return path
