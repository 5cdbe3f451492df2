"""Check the path of an interpreter before it starts a worker."""

from __future__ import annotations

import os
import shutil

from suites.schema.refusals import Refused


def interpreter_path(key: str, given: str) -> str:
    """Return the absolute path of a program.

    A relative path starts at the current folder. A bare name is searched in PATH. Links are not resolved, because
    Python finds its virtual environment through the link.

    Raises:
        Refused: The path is missing, is a folder, or is a file that cannot be executed.
    """
    advice = f"set {key} to a Python with numpy, on the command line or in inference-suites.yaml"
    try:
        path = given if "/" in given else shutil.which(given) or os.path.abspath(given)
        path = os.path.abspath(path)
        if os.path.isdir(path):
            raise Refused(f"{key}={given} is a folder, not an executable Python; give the path of the program in it")
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            raise Refused(f"{key}={given} is not an executable Python: there is no such file; {advice}") from None
        if not (os.path.isfile(path) and os.access(path, os.X_OK)):
            raise Refused(f"{key}={given} is not an executable Python: it is not an executable file; {advice}")
    except Refused:
        raise
    except (OSError, ValueError) as error:
        raise Refused(f"{key}={given!r} is not an executable Python ({error}); {advice}") from None
    return path
