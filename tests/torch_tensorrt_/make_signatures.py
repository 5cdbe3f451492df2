"""Write signatures.json: the parameters of the functions of Torch-TensorRT that the backend calls, with their types.

Its argument is the folder of an unpacked wheel of torch-tensorrt. The package itself needs TensorRT to be imported.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

FUNCTIONS = {"dynamo.compile": "dynamo/_compiler.py", "save": "_compile.py", "load": "_compile.py"}

INPUT = "_Input.py"
"""File of the class Input. Its keywords are in the text of its constructor."""


def parameters(source: str, name: str) -> dict[str, str]:
    """Return the annotations of the parameters of a function, by name. Parameters without a name are left out."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            listed = (*node.args.args, *node.args.kwonlyargs)
            return {item.arg: ast.unparse(item.annotation) if item.annotation else "Any" for item in listed}
    raise KeyError(name)


def keywords(source: str) -> dict[str, str]:
    """Return the keywords of the class Input, with the type that its documentation gives them."""
    found = re.findall(r"^ +(\w+) \(([^)]+?), optional\): ", source, re.M)
    found += re.findall(r"^ +(dtype) \(([^)]+)\): ", source, re.M)
    return dict(found)


def main(wheel: Path) -> None:
    package = wheel / "torch_tensorrt"
    (version,) = re.findall(r"\d+\.\d+\.\d+", next(wheel.glob("torch_tensorrt-*.dist-info")).name)
    signatures = {
        name: parameters((package / file).read_text(encoding="utf-8"), name.rpartition(".")[2])
        for name, file in FUNCTIONS.items()
    }
    signatures["Input"] = keywords((package / INPUT).read_text(encoding="utf-8"))
    target = Path(__file__).with_name("signatures.json")
    target.write_text(json.dumps({"version": version, **signatures}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
