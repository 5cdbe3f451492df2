"""How a sentence encoder makes one vector of a text, as its own files say (modules.json of sentence-transformers)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backends.base import Unavailable, Unsupported
from backends.checkpoint_files import read_object
from backends.features import Text

MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Switches of 1_Pooling/config.json by the mode that they turn on; newer files name it as `pooling_mode`."""

PROMPTS, READING = "config_sentence_transformers.json", "sentence_bert_config.json"
"""The files that say what is put before a text, and how a text is read."""

READOUTS = {"cls": "first", "mean": "mean", "max": "max"}
"""The readout (backends/readout.py) of each mode that is computed here."""


@dataclass(frozen=True)
class Pooling:
    """
    Attributes:
        mode: "mean", "cls" or "max".
        normalized: whether vectors are scaled to length 1 before they are used.
        source: the file that says so, or "default".
        lowered: whether texts are put in lower case before the tokenizer reads them.
        longest: tokens at which texts are cut; 0 where the files do not say.
    """

    mode: str = "mean"
    normalized: bool = True
    source: str = "default"
    lowered: bool = False
    longest: int = 0

    @property
    def readout(self) -> str:
        return READOUTS[self.mode]

    @property
    def note(self) -> str:
        """For a record and its row."""
        return f"{self.mode} pooling{'' if self.source == 'default' else f' ({self.source})'}"

    def texts(self, texts: Sequence[Text]) -> Sequence[Text]:
        """Texts as the encoder's tokenizer gets them."""
        if not self.lowered:
            return texts
        return [text.lower() if isinstance(text, str) else [part.lower() for part in text] for text in texts]


def pooling_of(folder: Path) -> Pooling:
    """The pooling of a checkpoint; the normalized mean where its files do not say.

    Raises:
        Unsupported: the files ask for a mode, a module or a prompt that is not computed here.
        Unavailable: a file is malformed.
    """
    _check_prompt(folder)
    own = read_object(folder / READING) if (folder / READING).is_file() else {}
    longest = own.get("max_seq_length")
    if longest is not None and (type(longest) is not int or longest < 1):
        raise Unavailable(f"{READING} has max_seq_length {json.dumps(longest)[:40]}; it must be a number of tokens")
    return replace(_vector_of(folder), lowered=own.get("do_lower_case") is True, longest=longest or 0)


def _check_prompt(folder: Path) -> None:
    found = read_object(folder / PROMPTS) if (folder / PROMPTS).is_file() else {}
    name, prompts = found.get("default_prompt_name"), found.get("prompts")
    if name and not (isinstance(prompts, dict) and prompts.get(name) == ""):
        raise Unsupported(
            f"{PROMPTS} puts the prompt {str(name)[:40]!r} before each text, which is not done here; "
            "set default_prompt_name to null and give texts that begin with the prompt"
        )


def _vector_of(folder: Path) -> Pooling:
    if not (folder / "modules.json").is_file():
        found = sorted(folder.glob("*_Pooling/config.json"))
        return Pooling(_mode(found[0]), True, _named(found[0])) if found else Pooling()
    path, normalized = "", False
    for module in _modules(folder / "modules.json"):
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            path = str(module.get("path", ""))
        elif kind == "Normalize":
            normalized = True
        elif kind != "Transformer":
            raise Unsupported(f"modules.json has the module {kind!r} after the encoder, which is not computed here")
    if not path:
        return Pooling("mean", normalized, "modules.json without a pooling module")
    file = folder / path / "config.json"
    if Path(path).is_absolute() or ".." in Path(path).parts or not file.is_file():
        raise Unavailable(f"modules.json names the folder {path!r}, which has no config.json; fetch it again")
    return Pooling(_mode(file), normalized, _named(file))


def _named(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"


def _modules(path: Path) -> list[Mapping[str, Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Unavailable(f"modules.json cannot be read: {error}") from None
    if not isinstance(found, list) or not all(isinstance(module, dict) for module in found):
        raise Unavailable("modules.json must be a list of modules; fetch the checkpoint again")
    return found


def _mode(file: Path) -> str:
    """The one mode that is on, "mean", "cls" or "max"."""
    found = read_object(file)
    named = found.get("pooling_mode")
    given = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    modes = [str(mode) for mode in given] or [mode for switch, mode in MODES.items() if found.get(switch)]
    if len(modes) != 1 or modes[0] not in READOUTS:
        asked = " and ".join(modes) or "no pooling"
        raise Unsupported(f"{_named(file)} asks for {asked}; one of {', '.join(READOUTS)} is computed here")
    return modes[0]
