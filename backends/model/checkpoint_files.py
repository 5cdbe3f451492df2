"""Files in the folder of a checkpoint: find them and check that they are complete. Runs no code from them."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from backends.base import Unavailable
from backends.model.families import least_types, names_of_setting

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

TOKENIZER_FILES = (
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "sentencepiece*",
    "spiece.model",
    "bpe.codes",
)
"""Patterns of the files that a tokenizer may read."""

SENTENCE_FILES = (
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "*/config.json",
)
"""Patterns of the files in which sentence-transformers describes the modules after the encoder."""

DENSE_WEIGHTS = "*_Dense/model.safetensors"
"""Pattern of the weights of linear layers after the pooling, in the folders that sentence-transformers writes."""

POINTER = b"version https://git-lfs"
"""First bytes of a git-lfs pointer: a file whose content was not fetched."""

ENDS = 256
"""Number of bytes at the start and at the end of a file that are read to recognize JSON."""

HEADER_LIMIT = 100_000_000
"""Longest header that safetensors accepts, in bytes."""

COUNTS = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "embedding_size",
    "max_position_embeddings", "type_vocab_size", "num_labels",
)  # fmt: skip
"""Fields of config.json that must be positive integers. Some families have other names for them."""


def read_config(folder: Path) -> dict[str, object]:
    """Read config.json and check the fields that the project uses.

    Raises:
        Unavailable: it is missing, cannot be read, is not a JSON object, or a field has an invalid value.
    """
    config = read_object(folder / "config.json")
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise Unavailable(f"config.json has model_type {json.dumps(model_type)[:40]}; it must be a name, e.g. bert")
    for name in (own_name for count in COUNTS for own_name in names_of_setting(count)):
        value, least = config.get(name, 1), least_types(config) if name == "type_vocab_size" else 1
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise Unavailable(
                f"config.json has {name} {json.dumps(value)[:40]}; it must be an integer of at least {least}"
            )
    padding = config.get("pad_token_id")
    if padding is not None and (not isinstance(padding, int) or isinstance(padding, bool) or padding < 0):
        raise Unavailable(f"config.json has pad_token_id {json.dumps(padding)[:40]}; it must be a token id or null")
    _check_labels(config.get("id2label"))
    return config


def _check_labels(names: object) -> None:
    if names is None:
        return
    numbered = isinstance(names, Mapping) and all(str(output).isdecimal() for output in names)
    if not (numbered and isinstance(names, Mapping) and all(isinstance(name, str | int) for name in names.values())):
        raise Unavailable(
            f"config.json has id2label {json.dumps(names)[:40]}; it must map numbers to names, e.g. "
            '{"0": "negative", "1": "positive"}'
        )


def read_object(path: Path, name: str = "") -> dict[str, object]:
    """Read a JSON file that contains an object. Raise Unavailable, with `name` or that of the file, if it does not."""
    name = name or path.name
    try:
        content = path.read_bytes()
        value = json.loads(content.decode("utf-8"))
    except OSError as error:
        raise Unavailable(f"{name} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        if content.startswith(POINTER):
            raise Unavailable(_pointer_message(name)) from None
        raise Unavailable(f"{name} is not JSON ({error}); correct it, or fetch it again") from None
    if not isinstance(value, dict):
        raise Unavailable(f"{name} contains {json.dumps(value)[:40]}; it must contain a JSON object")
    return value


def weight_files(folder: Path) -> list[Path]:
    """Return model.safetensors, or the files that model.safetensors.index.json lists.

    Raises:
        Unavailable: there are none, or the index lists files that are missing or in another folder.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        pickled = sorted([*folder.glob("pytorch_model*.bin"), *folder.glob("*.pt"), *folder.glob("*.ckpt")])
        advice = "; pickled weights are not supported: save them with safe_serialization=True" if pickled else ""
        raise Unavailable(f"has no {WEIGHTS}{f', only {pickled[0].name}' if pickled else ''}{advice}")
    mapped = read_object(folder / INDEX).get("weight_map")
    if not isinstance(mapped, dict) or not mapped or not all(isinstance(name, str) for name in mapped.values()):
        raise Unavailable(f"{INDEX} has no weight_map from names to files; fetch the checkpoint again")
    names = sorted(set(mapped.values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise Unavailable(f"{INDEX} lists {name!r}; it must be a .safetensors file in the same folder")
        if not (folder / name).is_file():
            raise Unavailable(f"{INDEX} lists {name}, which is missing; fetch the checkpoint again")
    return [folder / name for name in names]


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files that the checkpoint's tokenizer may read; none if it has no tokenizer."""
    return sorted({path for pattern in TOKENIZER_FILES for path in folder.glob(pattern) if path.is_file()})


def identity_files(folder: Path) -> list[Path]:
    """Return all files that affect the outputs of the checkpoint, sorted. Raise Unavailable as `weight_files` does."""
    paths = {folder / "config.json", *weight_files(folder), *tokenizer_files(folder)}
    paths |= {path for pattern in SENTENCE_FILES for path in folder.glob(pattern)}
    paths |= set(module_weights(folder))
    paths |= {folder / INDEX, *folder.glob("adapter_config.json")}
    return sorted(path for path in paths if path.is_file())


def module_weights(folder: Path) -> list[Path]:
    """Return the weight files of the modules after the encoder that modules.json lists; none if it is malformed."""
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        paths = [Path(module["path"]) for module in modules if module["path"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    inside = [path for path in paths if not path.is_absolute() and ".." not in path.parts]
    return [folder / path / WEIGHTS for path in inside if (folder / path / WEIGHTS).is_file()]


def check_files(folder: Path) -> None:
    """Check that the files of the checkpoint are complete and readable.

    Raises:
        Unavailable: a file is missing, unreadable, a git-lfs pointer or truncated, or config.json is malformed.
    """
    try:
        if adapters := sorted(folder.glob("adapter_model*")):
            raise Unavailable(
                f"{adapters[0].name} is an adapter, which is not supported; merge it into the weights of its model "
                "(merge_and_unload of peft) and give that folder"
            )
        if not (folder / "config.json").is_file():
            raise Unavailable("has no config.json")
        for path in identity_files(folder):
            _check_ends(path)
        for path in weight_files(folder):
            tensor_names(path)
    except OSError as error:
        name = Path(str(error.filename or folder)).name
        raise Unavailable(f"{name} cannot be read: {error.strerror}; change its permissions") from None
    read_config(folder)


def _check_ends(path: Path) -> None:
    """Raise Unavailable for a git-lfs pointer, and for a JSON file that does not start and end with JSON brackets."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        first = stream.read(ENDS)
        stream.seek(max(0, size - ENDS))
        last = stream.read(ENDS)
    if first.startswith(POINTER):
        raise Unavailable(_pointer_message(path.name))
    begins, ends = first.removeprefix(codecs.BOM_UTF8).lstrip()[:1], last.rstrip()[-1:]
    if path.suffix == ".json" and path.name != "config.json" and begins + ends not in (b"{}", b"[]"):
        raise Unavailable(f"{path.name} is not JSON, or truncated ({size:,} bytes); fetch it again")


def _pointer_message(name: str) -> str:
    return f"{name} is a git-lfs pointer, not the file itself; fetch it, e.g. with git lfs pull"


def tensor_names(path: Path) -> list[str]:
    """Return the names of the tensors in a .safetensors file. Raise Unavailable as `tensor_shapes` does."""
    return list(tensor_shapes(path))


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor in a .safetensors file by name. Reads only the header.

    Raises:
        Unavailable: the header is invalid, or the size of the file does not match the header.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(HEADER_LIMIT, size - 8):
            raise Unavailable(f"{path.name} is not a complete safetensors file; fetch it again")
        shapes: dict[str, tuple[int, ...]] = {}
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            shapes = {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
            complete = size == 8 + length + max(ends, default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            complete = False
    if not complete:
        raise Unavailable(f"{path.name} is not a complete safetensors file ({size:,} bytes); fetch it again")
    return shapes


def all_tensor_names(folder: Path) -> Iterator[str]:
    """Yield the names of the tensors in all weight files of a checkpoint."""
    for path in weight_files(folder):
        yield from tensor_names(path)
