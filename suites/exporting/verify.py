"""Check an exported model in its folder: python verify.py

It compares the digests of all files, runs the model on the token ids in expected.npz, and compares the outputs. It
needs numpy and the runtime of the model only; README.md names the packages. For each sentence it prints the greatest
difference of any output value, the cosine of the sentence vector to the expected vector, and its cosine to FP32.

Exit status: 0 the model agrees, 1 it does not agree, 2 it cannot be run.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import numpy as np

COLUMNS = "sentence  greatest difference  cosine    cosine to FP32"


class FileEntry(TypedDict):
    """A file in manifest.json."""

    sha256: str


class Pooling(TypedDict):
    """The pooling of sentence vectors in manifest.json."""

    mode: str


class Manifest(TypedDict):
    """The parts of manifest.json that this check reads."""

    runner: str
    settings: Mapping[str, object]
    pooling: Pooling
    sentences: list[str]
    minimum_cosine: float
    files: dict[str, FileEntry]


def sentence_vector(tokens: np.ndarray, pooling: str) -> np.ndarray:
    """Return the pooled vector of one sentence from the outputs of its tokens, [tokens, features].

    An output with one row for each sentence is its vector.
    """
    reduced = {"max": tokens.max(0), "cls": tokens[0], "lasttoken": tokens[-1]}
    return np.concatenate([reduced.get(mode, tokens.mean(0)) for mode in pooling.split("+")]).astype(np.float64)


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Return the cosine between two vectors."""
    return float(first @ second / np.sqrt((first @ first) * (second @ second)))


def changed_files(folder: Path, files: Mapping[str, FileEntry]) -> list[str]:
    """Return a line for each file that is missing or differs from its digest in manifest.json."""
    faults = []
    for name, entry in files.items():
        if not (folder / name).is_file():
            faults.append(f"{name} is missing")
            continue
        sha = hashlib.sha256()
        with (folder / name).open("rb") as stream:
            while block := stream.read(1 << 22):
                sha.update(block)
        if sha.hexdigest() != entry["sha256"]:
            faults.append(f"{name} differs from its digest in manifest.json")
    return faults


def outputs(folder: Path, manifest: Manifest, arrays: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
    """Run the model; return the output of each batch as FP32 [rows, features], by number of the batch."""
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    run = importlib.import_module(manifest["runner"]).open_model(folder, manifest["settings"])
    batches: dict[int, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        batch, _, tensor = name.partition("/")
        if batch.startswith("run"):
            batches.setdefault(int(batch[3:]), {})[tensor] = array
    hidden = arrays["sample0/expected"].shape[-1]
    return {number: run(batch).reshape(-1, hidden) for number, batch in batches.items()}


def compare(manifest: Manifest, arrays: Mapping[str, np.ndarray], hidden: Mapping[int, np.ndarray]) -> bool:
    """Print a line for each sentence; return whether all agree."""
    pooling, least, agree = manifest["pooling"]["mode"], float(manifest["minimum_cosine"]), True
    print(COLUMNS)
    for number in range(len(manifest["sentences"])):
        parts = {name: arrays[f"sample{number}/{name}"] for name in ("run", "rows", "expected", "reference")}
        tokens = hidden[int(parts["run"])][parts["rows"]]
        vectors = [sentence_vector(part, pooling) for part in (tokens, parts["expected"], parts["reference"])]
        difference, same = float(np.abs(tokens - parts["expected"]).max()), cosine(vectors[0], vectors[1])
        good = bool(np.isfinite(tokens).all()) and same >= least
        agree = agree and good
        fault = "" if good else f"  below {least}"
        print(f"{number + 1:>8}  {difference:>19.2e}  {same:.6f}  {cosine(vectors[0], vectors[2]):.6f}{fault}")
    return agree


def main(folder: Path) -> int:
    """Check the model in a folder and return the exit status."""
    manifest: Manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    faults = changed_files(folder, manifest["files"])
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        return 1
    with np.load(folder / "expected.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    try:
        hidden = outputs(folder, manifest, arrays)
    except (ImportError, RuntimeError) as error:
        print(f"the model cannot be run: {error}; README.md names the packages that it needs", file=sys.stderr)
        return 2
    agree = compare(manifest, arrays, hidden)
    print(f"the model {'agrees' if agree else 'does not agree'} with the expected outputs")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent))
