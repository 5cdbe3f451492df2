"""Tiny checkpoints with word tokenizers, made by transformers, and requests for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conftest import OTHER_MODELS, ROOT, TINY_MODELS

from backends.model.families import uncounted_id
from suites.asking.request import Request, resolve

WORDS = (
    "the", "cat", "sat", "on", "a", "mat", "and", "saw", "red", "dog", "who", "was", "big", "or", "small", "it", "ran",
    "to", "sea",
)  # fmt: skip
FIRST = ("[PAD]", "[UNK]")
SPECIALS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


def word_model(folder: Path, family: str = "bert", head: str = "", **config: Any) -> Path:
    """Write a checkpoint of random weights with a tokenizer of WORDS. `head` is classification, tokens or answers."""
    import torch
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForQuestionAnswering,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
    )

    architecture = {"vocab_size": 60, **{**TINY_MODELS, **OTHER_MODELS}[family], **config}
    kinds = {"": AutoModel, "classification": AutoModelForSequenceClassification,
             "tokens": AutoModelForTokenClassification, "answers": AutoModelForQuestionAnswering}  # fmt: skip
    torch.manual_seed(0)
    model = kinds[head].from_config(AutoConfig.for_model(architecture.pop("model_type"), **architecture))
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    # Families that count no position for the padding token have [PAD] at its id, so that no other token has it.
    word_tokenizer(folder, first=("[UNK]", "[PAD]") if uncounted_id(model.config.to_dict()) == 1 else FIRST)
    return folder


def word_tokenizer(
    folder: Path,
    words: tuple[str, ...] = WORDS,
    around: bool = True,
    names: dict[str, str] = SPECIALS,
    first: tuple[str, str] = FIRST,
    **more: Any,
) -> None:
    """Save a tokenizer of `words` into `folder`. `around` adds [CLS] and [SEP] around texts.

    `first` has the tokens with the ids 0 and 1.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: place for place, word in enumerate((*first, "[CLS]", "[SEP]", *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if around:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )  # fmt: skip
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **more).save_pretrained(folder)


def request(tmp_path: Path, *overrides: str) -> Request:
    """Return the request of a command line, with results and cache below `tmp_path`."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from suites.cli.local_settings import register

    register()
    own = ["device=cpu", f"results={tmp_path / 'results'}", f"cache={tmp_path / 'cache'}"]
    with initialize_config_dir(str(ROOT / "suites" / "conf"), version_base="1.3"):
        config = compose("run", [*own, *overrides])
    return resolve(OmegaConf.to_object(config))  # type: ignore[arg-type]
