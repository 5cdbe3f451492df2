"""Find the checkpoint of a model and load its encoder. Reads only safetensors; never runs code from a checkpoint."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import Feeds, Unavailable, Unsupported
from backends.cache import ArtifactCache
from backends.model.checkpoint_files import all_tensor_names, check_files, read_config
from backends.model.families import FAMILIES, family_of, input_names_of
from backends.model.hub import fetch
from backends.model.identity import identity_of, weights_digest
from backends.model.padded_weights import padded_checkpoint
from backends.model.random_weights import random_checkpoint
from backends.model.reference import ModelReference
from backends.model.supported import check_computable

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Checkpoint:
    """Checkpoint on this machine.

    Attributes:
        folder: folder of config.json, the weights and, if there is one, the tokenizer.
        identity: digest of all files that affect its outputs, see backends/model/identity.py.
        weights_sha256: digest of the weights only.
        origin: "path", "random", "hub ID@REVISION" or "package NAME==VERSION".
    """

    folder: Path
    identity: str
    weights_sha256: str
    origin: str


def find_checkpoint(model: ModelReference, cache: ArtifactCache) -> Checkpoint:
    """Find the checkpoint of a model's configuration, and check that its files are complete.

    Raises:
        Unavailable: the checkpoint was not found, or one of its files is damaged. The message gives the fix.
    """
    if model.weights == "random":
        folder, origin = random_checkpoint(model, cache), "random"
    elif model.path:
        folder, origin = Path(model.path), model.origin or "path"
    else:
        folder, origin = fetch(model)
    try:
        check_files(folder)
    except Unavailable as reason:
        subject = f"model.hub={model.hub}" if model.hub and not model.path else "the model's folder"
        raise Unavailable(f"{subject}{' ' if str(reason).startswith('has no') else ': '}{reason}") from None
    if model.padded:
        folder = padded_checkpoint(folder, model.padded, cache)
    return Checkpoint(folder, identity_of(folder, cache.root), weights_digest(folder, cache.root), origin)


def load_encoder(folder: Path, attention: str = "fused") -> torch.nn.Module:
    """Load the encoder in FP32 and evaluation mode, without a pooler or head.

    backends/model/adapted_encoders.py describes its inputs and its output.

    Args:
        attention: "fused" for a boolean mask or None, "plain" for an additive mask (backends/model/attention.py).

    Raises:
        Unsupported: the project cannot compute the architecture exactly, or the checkpoint lacks weights of the encoder
            (transformers would fill them with different random values in every process).
        Unavailable: transformers cannot build the model from config.json.
    """
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    from backends.model import attention as implementations
    from backends.model.adapted_encoders import ADAPTERS, OWN_ATTENTION

    implementations.register()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    own_config = read_config(folder)
    check_computable(own_config)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        kind = family_of(own_config).attention
        model, info = AutoModel.from_pretrained(
            folder,
            config=config,
            attn_implementation="eager" if kind in OWN_ATTENTION else f"suites_{attention}",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **({"add_pooling_layer": False} if _accepts_pooling_choice(config) else {}),
        )
    except (OSError, MemoryError, RuntimeError):
        raise
    except Exception as error:  # a wrong value in config.json can make transformers raise any exception
        text = " ".join(str(error).split())[:200]
        raise Unavailable(
            f"transformers cannot build the model of config.json ({type(error).__name__}: {text}); correct config.json"
        ) from error
    if mismatched := sorted(str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"]):
        raise Unsupported(
            f"the sizes in config.json do not match the weights, e.g. for {mismatched[0]}; "
            "give the config.json that belongs to the weights"
        )
    if missing := sorted(name for name in info["missing_keys"] if not name.endswith("position_ids")):
        raise Unsupported(_missing_weights(folder, missing))
    return ADAPTERS[kind](model.float()).eval()


def _accepts_pooling_choice(config: object) -> bool:
    """Return whether AutoModel's class for `config` can leave out its pooler."""
    from transformers import MODEL_MAPPING

    return "add_pooling_layer" in inspect.signature(MODEL_MAPPING[type(config)].__init__).parameters


def _missing_weights(folder: Path, missing: list[str]) -> str:
    """Return the message for missing weights. One cause is a prefix of the names that transformers does not expect."""
    names = set(all_tensor_names(folder))
    for name in sorted(names):
        prefix = name.removesuffix(missing[0])
        if name.endswith(missing[0]) and prefix and all(f"{prefix}{other}" in names for other in missing):
            model_type = read_config(folder)["model_type"]
            if prefix.strip(".") in FAMILIES and prefix.strip(".") != model_type:
                return (
                    f"config.json has model_type {model_type!r}, and the names of the weights begin with {prefix!r}; "
                    "give the config.json that belongs to the weights"
                )
            return f"the names of the checkpoint's weights begin with {prefix!r}; remove the prefix and save it again"
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"the checkpoint lacks weights of its encoder, {missing[0]}{more}; give a checkpoint that has all weights"


def input_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the encoder's inputs in the order of its ONNX file."""
    return input_names_of(read_config(folder))


def run_encoder(encoder: torch.nn.Module, feeds: Feeds) -> torch.Tensor:
    """Return the last hidden state [batch, sequence, hidden] of `feeds`, on the device of the encoder's weights."""
    import torch

    device = next(encoder.parameters()).device
    inputs = {name: torch.from_numpy(array).to(device) for name, array in feeds.items()}
    mask = inputs.pop("attention_mask")[:, None, None, :].bool()
    hidden: torch.Tensor = encoder(**inputs, attention_mask=mask).last_hidden_state
    return hidden
