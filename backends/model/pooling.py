"""Pooling of a sentence encoder: one vector per text, as its own files define it (sentence-transformers)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from backends.base import Unavailable, Unsupported
from backends.model.checkpoint_files import read_config, read_object
from backends.model.families import setting_of
from backends.model_output import POOLINGS, Output

MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Pooling mode by its switch in 1_Pooling/config.json, in the order in which sentence-transformers joins several modes.
Newer files give the mode as `pooling_mode`."""

DIMENSIONS = ("word_embedding_dimension", "embedding_dimension")
"""Hidden size in 1_Pooling/config.json, in older and in newer files."""

ORDER = ("Transformer", "Pooling", "Dense", "Normalize")
"""Supported modules of modules.json, in their order."""

PROMPTS, READING = "config_sentence_transformers.json", "sentence_bert_config.json"
"""Files that define the prompt before a text, and how a text is preprocessed."""


@dataclass(frozen=True)
class Pooling:
    """Pooling and preprocessing of a sentence encoder.

    Attributes:
        modes: names from POOLINGS (backends/model_output.py); several are concatenated.
        normalized: whether vectors are scaled to length 1.
        source: the file that defines the pooling, or "default".
        dense: folders of the linear layers after the pooling, in order.
        lower_case: whether texts are converted to lower case before tokenization.
        longest: number of tokens to which texts are truncated; 0 if the files give none.
    """

    modes: tuple[str, ...] = ("mean",)
    normalized: bool = True
    source: str = "default"
    dense: tuple[str, ...] = ()
    lower_case: bool = False
    longest: int = 0

    @property
    def mode(self) -> str:
        """Return the modes, joined by "+"."""
        return "+".join(self.modes)

    @property
    def note(self) -> str:
        """Return the pooling in words, for a record and its table row."""
        return f"{self.mode} pooling{'' if self.source == 'default' else f' ({self.source})'}"

    def changed_by(self, output: Output) -> Pooling:
        """Return the pooling of an output, which may name its own; other poolings leave out the Dense layers."""
        if not output.pooling and output.normalize is None:
            return self
        normalized = self.normalized if output.normalize is None else output.normalize
        dense = () if output.pooling else self.dense
        return replace(self, modes=output.pooling or self.modes, normalized=normalized, source="options", dense=dense)

    def texts(self, texts: Sequence[str | Sequence[str]]) -> Sequence[str | Sequence[str]]:
        """Return the preprocessed texts, for the tokenizer."""
        if not self.lower_case:
            return texts
        return [text.lower() if isinstance(text, str) else [item.lower() for item in text] for text in texts]


def pooling_of(folder: Path) -> Pooling:
    """Return the pooling of a checkpoint; the normalized mean if its files define none.

    Raises:
        Unsupported: the files define a mode, a module or a prompt that is not supported.
        Unavailable: a file is malformed.
    """
    _check_prompt(folder)
    settings = read_object(folder / READING) if (folder / READING).is_file() else {}
    longest = settings.get("max_seq_length")
    if longest is not None and (type(longest) is not int or longest < 1):
        raise Unavailable(f"{READING} has max_seq_length {json.dumps(longest)[:40]}; it must be a number of tokens")
    return replace(_pooling_module(folder), lower_case=settings.get("do_lower_case") is True, longest=longest or 0)


def _check_prompt(folder: Path) -> None:
    settings = read_object(folder / PROMPTS) if (folder / PROMPTS).is_file() else {}
    name, prompts = settings.get("default_prompt_name"), settings.get("prompts")
    if name and not (isinstance(prompts, dict) and prompts.get(name) == ""):
        raise Unsupported(
            f"{PROMPTS} puts the prompt {str(name)[:40]!r} before each text, which is not supported; "
            "set default_prompt_name to null and give texts that begin with the prompt"
        )


def _pooling_module(folder: Path) -> Pooling:
    if not (folder / "modules.json").is_file():
        files = sorted(folder.glob("*_Pooling/config.json"))
        return Pooling(_modes(files[0]), True, _short_path(files[0])) if files else Pooling()
    kinds = [(str(module.get("type", "")).rpartition(".")[2], str(module.get("path", "")))
             for module in _modules(folder / "modules.json")]  # fmt: skip
    names = [kind for kind, _ in kinds]
    if not names:
        raise Unavailable("modules.json lists no modules; fetch the checkpoint again")
    for kind in names:
        if kind not in ORDER:
            raise Unsupported(
                f"modules.json has the module {kind!r} after the encoder, which is not supported; "
                f"give a checkpoint with only {', '.join(ORDER)} modules"
            )
    if names != sorted(names, key=ORDER.index) or names.count("Pooling") > 1:
        raise Unavailable(
            f"modules.json lists {', '.join(names)}; it must have one Pooling module after the Transformer, then Dense "
            "modules, then Normalize: correct it"
        )
    normalized, dense = "Normalize" in names, tuple(path for kind, path in kinds if kind == "Dense")
    for kind, path in kinds:
        if kind in ("Pooling", "Dense") and not _is_inside(folder, path):
            raise Unavailable(f"modules.json lists the folder {path!r}, which has no config.json; fetch it again")
    path = next((path for kind, path in kinds if kind == "Pooling"), "")
    if not path:
        return Pooling(("mean",), normalized, "modules.json without a pooling module", dense)
    return Pooling(_modes(folder / path / "config.json"), normalized, _short_path(folder / path / "config.json"), dense)


def _is_inside(folder: Path, path: str) -> bool:
    return bool(path) and not Path(path).is_absolute() and ".." not in Path(path).parts and (
        folder / path / "config.json"
    ).is_file()  # fmt: skip


def _short_path(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"


def _modules(path: Path) -> list[Mapping[str, object]]:
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Unavailable(f"modules.json cannot be read: {error}; fetch the checkpoint again") from None
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise Unavailable("modules.json must be a list of modules; fetch the checkpoint again")
    return modules


def hidden_size_of(folder: Path) -> int | None:
    """Return the number of values of a hidden state; None if config.json does not give it."""
    size = setting_of(read_config(folder), "hidden_size") if (folder / "config.json").is_file() else None
    return size if isinstance(size, int) else None


def _check_dimension(file: Path, settings: Mapping[str, object]) -> None:
    """Raise Unavailable if a pooling file is for another hidden size than that of the checkpoint."""
    hidden = hidden_size_of(file.parent.parent)
    for name in DIMENSIONS:
        dimension = settings.get(name)
        if isinstance(dimension, int) and hidden not in (None, dimension):
            raise Unavailable(
                f"{_short_path(file)} has {name} {dimension}, but the hidden size in config.json is {hidden}; "
                "give the files of one checkpoint"
            )


def _check_switches(file: Path, settings: Mapping[str, object]) -> None:
    """Raise Unavailable if a switch of a pooling mode is neither true nor false."""
    for switch in MODES:
        if (value := settings.get(switch)) is not None and not isinstance(value, bool):
            shown = json.dumps(value)[:40]
            raise Unavailable(f"{_short_path(file)} has {switch} {shown}; it must be true or false: correct the file")


def _modes(file: Path) -> tuple[str, ...]:
    """Return the pooling modes of a 1_Pooling/config.json, in the order in which sentence-transformers joins them."""
    settings = read_object(file, _short_path(file))
    _check_dimension(file, settings)
    _check_switches(file, settings)
    value = settings.get("pooling_mode")
    named = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    switched = [mode for switch, mode in MODES.items() if settings.get(switch) is True]
    modes = [str(mode) for mode in named] or switched
    if named and switched and set(modes) != set(switched):
        raise Unavailable(
            f"{_short_path(file)} contradicts itself: pooling_mode is {'+'.join(modes)}, but its switches select "
            f"{'+'.join(switched)}; correct the file"
        )
    if not modes or not set(modes) <= set(POOLINGS):
        fault = f"has the pooling {'+'.join(modes)[:40]}, which is not supported" if modes else "selects no pooling"
        raise Unsupported(f"{_short_path(file)} {fault}; select one or more of {', '.join(POOLINGS)} in this file")
    return tuple(modes)
