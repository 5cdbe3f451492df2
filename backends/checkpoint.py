"""Find a model's checkpoint, and load it as an encoder. Safetensors only; code from a checkpoint is never run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.base import Feeds, Unavailable, Unsupported
from backends.cache import ArtifactCache
from backends.checkpoint_files import all_tensor_names, check_files, read_config
from backends.families import FAMILIES, check_computable, family_of, input_names_of
from backends.hub import fetch
from backends.identity import identity_of, weights_digest
from backends.random_weights import random_checkpoint

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine.

    Attributes:
        folder: holds config.json, the weights and, where there is one, the tokenizer.
        identity: digest of all files that decide its outputs, see backends/identity.py.
        weights_sha256: digest of the weights alone.
        origin: "path", "random", "hub ID@REVISION" or "package NAME==VERSION".
    """

    folder: Path
    identity: str
    weights_sha256: str
    origin: str


def locate(model: Mapping[str, Any], cache: ArtifactCache) -> Checkpoint:
    """The checkpoint that a model's configuration names, checked to be whole.

    Args:
        model: `path`, or `hub` with what backends/hub.py reads, or `weights` "random" with what
            backends/random_weights.py reads.

    Raises:
        Unavailable: it was not found, or a file of it is damaged; the message says what to do.
    """
    if model["weights"] == "random":
        folder, origin = random_checkpoint(model, cache), "random"
    elif model["path"]:
        folder, origin = Path(model["path"]), model.get("origin", "path")
    else:
        folder, origin = fetch(model)
    try:
        check_files(folder)
    except Unavailable as reason:
        named = f"model.hub={model['hub']}" if model.get("hub") and not model["path"] else "the model's folder"
        raise Unavailable(f"{named}{' ' if str(reason).startswith('has no') else ': '}{reason}") from None
    return Checkpoint(folder, identity_of(folder, cache.root), weights_digest(folder, cache.root), origin)


def load_encoder(folder: Path, attention: str = "fused") -> torch.nn.Module:
    """The encoder in FP32 and evaluation mode, without a pooler or head; its output is `last_hidden_state`.

    `attention` is "fused" or "plain", see backends/attention.py, which also says what mask to pass.

    Raises:
        Unsupported: the checkpoint lacks weights of the encoder, which would be made up anew in every process, or its
            architecture is not computed exactly here.
    """
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    from backends import attention as implementations
    from backends.relative_attention import RelativeEncoder

    implementations.register()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    found = read_config(folder)
    check_computable(found)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        relative = config.model_type == "mpnet"
        model, info = AutoModel.from_pretrained(
            folder,
            config=config,
            attn_implementation="eager" if relative else f"suites_{attention}",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **({"add_pooling_layer": False} if family_of(found).pooler else {}),
        )
    except (OSError, MemoryError, RuntimeError):
        raise
    except Exception as error:  # whatever a value in config.json leads transformers to
        said = " ".join(str(error).split())[:200]
        raise Unavailable(
            f"transformers cannot make the model of config.json ({type(error).__name__}: {said}); mend config.json"
        ) from error
    if mismatched := sorted(str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"]):
        raise Unsupported(
            f"config.json gives other sizes than the weights have, e.g. for {mismatched[0]}; "
            "give the config.json that belongs to the weights"
        )
    if missing := sorted(name for name in info["missing_keys"] if not name.endswith("position_ids")):
        raise Unsupported(_missing(folder, missing))
    encoder: torch.nn.Module = model.float().eval()
    return RelativeEncoder(encoder).eval() if relative else encoder


def _missing(folder: Path, missing: list[str]) -> str:
    """What to do about weights that the checkpoint lacks: its names may have a prefix that is not transformers'."""
    names = set(all_tensor_names(folder))
    for name in sorted(names):
        prefix = name.removesuffix(missing[0])
        if name.endswith(missing[0]) and prefix and all(f"{prefix}{other}" in names for other in missing):
            kind = read_config(folder)["model_type"]
            if prefix.strip(".") in FAMILIES and prefix.strip(".") != kind:
                return (
                    f"config.json has model_type {kind!r}, and the names of the weights begin with {prefix!r}; "
                    "give the config.json that belongs to the weights"
                )
            return f"the names of the checkpoint's weights begin with {prefix!r}; strip the prefix and save it again"
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"the checkpoint lacks weights of its encoder, {missing[0]}{more}; give one that has all of them"


def input_names(folder: Path) -> tuple[str, ...]:
    """The encoder's inputs in the order of its ONNX file."""
    return input_names_of(read_config(folder))


def run_encoder(encoder: torch.nn.Module, feeds: Feeds) -> torch.Tensor:
    """Last hidden state [batch, sequence, hidden] of `feeds`, where the encoder's weights are."""
    import torch

    device = next(encoder.parameters()).device
    inputs = {name: torch.from_numpy(array).to(device) for name, array in feeds.items()}
    mask = inputs.pop("attention_mask")[:, None, None, :].bool()
    hidden: torch.Tensor = encoder(**inputs, attention_mask=mask).last_hidden_state
    return hidden
