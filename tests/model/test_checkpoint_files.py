"""Checkpoint folders that are incomplete or damaged are refused in one line that names the file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from word_models import request, word_model

from backends.base import Unavailable, Unsupported
from backends.cache import ArtifactCache
from backends.model.checkpoint import find_checkpoint, load_encoder
from backends.model.checkpoint_files import WEIGHTS, check_files, read_config, tensor_names, weight_files
from backends.model.encoder_parts import encoder_parts
from backends.model.families import input_names_of, padding_id, positions_of
from backends.model.reference import ModelReference
from backends.model.supported import check_computable
from suites.schema.refusals import Refused


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return word_model(tmp_path_factory.mktemp("sound") / "model")


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """Return a copy of a valid checkpoint, which the test then damages."""
    return Path(shutil.copytree(sound, tmp_path / "model"))


def config(folder: Path, **changes: Any) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, **changes}))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "config.json contains []; it must contain a JSON object"),
        ('"x"', 'config.json contains "x"'),
        ("null", "config.json contains null"),
        ("{", "config.json is not JSON"),
        ("[" * 100_000, "config.json is not JSON"),
        ("version https://git-lfs.github.com/spec/v1\n", "config.json is a git-lfs pointer"),
    ],
)
def test_a_config_that_is_not_an_object_is_refused(text: str, says: str, folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(Refused) as refused:
        request(tmp_path, f"model.path={folder}")
    assert says in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_position_embeddings", None),
        ("max_position_embeddings", "512"),
        ("vocab_size", -1),
        ("hidden_size", 1.5),
        ("num_attention_heads", True),
        ("type_vocab_size", 0),
        ("num_labels", [2]),
        ("model_type", 5),
        ("model_type", None),
        ("pad_token_id", "0"),
        ("pad_token_id", -1),
        ("id2label", ["a", "b"]),
        ("id2label", {"one": "a"}),
        ("id2label", {"0": ["a"]}),
    ],
)
def test_a_field_of_the_wrong_type_is_refused_by_name(field: str, value: Any, folder: Path, tmp_path: Path) -> None:
    config(folder, **{field: value})
    for suite in ("latency", "accuracy"):
        with pytest.raises(Refused, match=f"config.json has {field}"):
            request(tmp_path, f"model.path={folder}", f"suite={suite}")


def test_a_config_that_is_not_utf8_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").write_bytes(b'{"model_type": "bert\xff"}')
    with pytest.raises(Refused, match=r"config\.json is not JSON"):
        request(tmp_path, f"model.path={folder}")


def test_labels_outside_ascii_are_read_in_any_locale(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "config.json").write_bytes('{"model_type": "bert", "id2label": {"0": "négatif"}}'.encode())
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "ascii")
    monkeypatch.setattr("io.text_encoding", lambda *_: "ascii")
    assert read_config(folder)["id2label"] == {"0": "négatif"}


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json"])
def test_a_git_lfs_pointer_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(Refused, match=f"{name} is a git-lfs pointer, not the file itself; fetch it"):
        request(tmp_path, f"model.path={folder}")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "modules.json"])
def test_truncated_json_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    for text in ("", '{"version": "1.0", "model": {"vocab"', "<html></html>"):
        (folder / name).write_text(text)
        with pytest.raises(Refused, match=f"{name} is not JSON, or truncated .*fetch it again"):
            request(tmp_path, f"model.path={folder}")


def test_an_adapter_is_not_ignored_silently(folder: Path, tmp_path: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(Refused, match=r"adapter_model\.safetensors is an adapter, which is not supported; merge it"):
        request(tmp_path, f"model.path={folder}")


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_truncated_weights_are_refused(keep: int, folder: Path, tmp_path: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:keep])
    with pytest.raises(Refused, match=r"model\.safetensors is not a complete safetensors file.*fetch it again"):
        request(tmp_path, f"model.path={folder}")
    (folder / WEIGHTS).write_bytes(whole + b"more")
    with pytest.raises(Refused, match="not a complete"):
        request(tmp_path, f"model.path={folder}")


@pytest.mark.parametrize("header", [b"[]", b"{}x", b'{"a": {}}', b'{"a": 1}', b'{"a": {"data_offsets": ["x"]}}'])
def test_an_invalid_safetensors_header_is_refused(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / WEIGHTS
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(Unavailable, match="not a complete"):
        tensor_names(path)


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json"])
def test_a_file_that_cannot_be_read_is_refused(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    def opened(path: Path, *arguments: Any, **more: Any) -> Any:
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **more)

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(Refused, match=f"{name} cannot be read: Permission denied; change its permissions"):
        request(tmp_path, f"model.path={folder}")


def test_pickled_weights_are_named_and_not_read(folder: Path, tmp_path: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    with pytest.raises(Refused, match=r"has no model\.safetensors, only pytorch_model\.bin; pickled weights"):
        request(tmp_path, f"model.path={folder}")


@pytest.fixture
def sharded(folder: Path) -> Path:
    """Return the checkpoint in two files with an index that names them."""
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, own in parts.items():
        save_file({name: weights[name] for name in own}, folder / file, {"format": "pt"})
    mapped = {name: file for file, own in parts.items() for name in own}
    index = {"metadata": {}, "weight_map": mapped}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_a_checkpoint_in_several_files_is_the_same_model(sharded: Path, sound: Path, tmp_path: Path) -> None:
    sharded_source, whole = (
        find_checkpoint(ModelReference("trained", str(path)), ArtifactCache(tmp_path)) for path in (sharded, sound)
    )
    assert len(weight_files(sharded)) == 2
    assert sharded_source.identity != whole.identity
    assert encoder_parts(sharded) == encoder_parts(sound)
    parts, expected = load_encoder(sharded).state_dict(), load_encoder(sound).state_dict()
    assert all((parts[name] == expected[name]).all() for name in expected)


def test_a_missing_part_is_named(sharded: Path, tmp_path: Path) -> None:
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(Refused, match=r"lists model-00002-of-00002\.safetensors, which is missing"):
        request(tmp_path, f"model.path={sharded}")


@pytest.mark.parametrize(
    "mapped", [{"a": "../other.safetensors"}, {"a": "/etc/passwd"}, {"a": "weights.bin"}, {"a": 5}, {}, []]
)
def test_an_index_may_name_only_files_of_its_own_folder(mapped: Any, sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapped}))
    with pytest.raises(Unavailable, match=r"model\.safetensors\.index\.json"):
        check_files(sharded)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module.bert."])
def test_a_prefix_of_the_weight_names_is_reported(prefix: str, folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file({f"{prefix}{name}": tensor for name, tensor in weights.items()}, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(Unsupported, match=f"begin with '{prefix}'; remove the prefix"):
        load_encoder(folder)


def test_weights_of_another_family_are_reported(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file({f"bert.{name}": tensor for name, tensor in weights.items()}, folder / WEIGHTS, {"format": "pt"})
    config(folder, model_type="roberta")
    with pytest.raises(
        Unsupported, match=r"config\.json has model_type 'roberta', and the names .* begin with 'bert\.'"
    ):
        load_encoder(folder)


@pytest.mark.parametrize(
    "changes",
    [{"layer_norm_eps": "1e-12"}, {"hidden_act": "swoosh"}, {"hidden_act": None}, {"num_attention_heads": 3}],
)
def test_a_value_that_transformers_rejects_is_named(changes: dict[str, Any], folder: Path) -> None:
    config(folder, **changes)
    with pytest.raises(
        Unavailable, match=r"cannot build the model of config.json \(\w+: .{8,}\); correct config.json"
    ) as it:
        load_encoder(folder)
    assert len(str(it.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"is_decoder": True}, "causal attention is not supported"),
        ({"add_cross_attention": True}, "causal attention is not supported"),
        ({"position_embedding_type": "relative_key"}, "relative_key positions are not supported"),
        ({"quantization_config": {"quant_method": "gptq"}}, "weights are quantized"),
        ({"model_type": "deberta"}, "model type 'deberta' is not one of bert"),
        ({"model_type": "gpt2"}, "model type 'gpt2' is not one of bert"),
    ],
)
def test_a_setting_that_is_not_computed_exactly_is_unsupported(
    changes: dict[str, Any], says: str, folder: Path
) -> None:
    config(folder, **changes)
    with pytest.raises(Unsupported, match=says):
        check_computable(read_config(folder))
    with pytest.raises(Unsupported, match=says):
        load_encoder(folder)


@pytest.mark.parametrize(
    ("settings", "positions"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512}, 512),
        ({"model_type": "bert"}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514}, 512),
        ({"model_type": "camembert", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "camembert", "max_position_embeddings": 514, "pad_token_id": 0}, 513),
        ({"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 5}, 512),
        ({"model_type": "distilbert", "max_position_embeddings": 64}, 64),
    ],
)
def test_the_number_of_positions_depends_on_the_family(settings: dict[str, Any], positions: int) -> None:
    assert positions_of(settings) == positions


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta", "camembert"])
def test_wrong_positions_and_padding_are_refused_with_the_name_of_the_model(
    family: str, folder: Path, tmp_path: Path
) -> None:
    config(folder, model_type=family, max_position_embeddings=514, pad_token_id=1)
    named = folder.rename(tmp_path / "my model")
    with pytest.raises(Refused, match="sequence=513 is beyond the 512 positions of my-model"):
        request(tmp_path, f"model.path={named}", "sequence=[513]")
    request(tmp_path, f"model.path={named}", "sequence=[512]")
    config(named, pad_token_id=None)
    with pytest.raises(Refused, match=r"config\.json has pad_token_id null; model type .* set pad_token_id"):
        request(tmp_path, f"model.path={named}")


def test_random_weights_use_the_positions_of_their_architecture(tmp_path: Path) -> None:
    few = ("model=bert_base", "weights=random", "+model.architecture.max_position_embeddings=64")
    with pytest.raises(Refused, match="sequence=65 is beyond the 64 positions of bert_base"):
        request(tmp_path, *few, "sequence=[65]")


def test_any_id_can_be_padding_if_the_config_names_none() -> None:
    assert padding_id({"model_type": "bert", "vocab_size": 10, "pad_token_id": None}) == 0
    assert padding_id({"model_type": "bert", "vocab_size": 10, "pad_token_id": 10}) == 0
    assert padding_id({"model_type": "bert", "vocab_size": 10, "pad_token_id": 7}) == 7


def test_token_types_are_an_input_only_if_the_model_has_them() -> None:
    with_types = ("input_ids", "attention_mask", "token_type_ids")
    assert input_names_of({"model_type": "bert", "type_vocab_size": 1}) == with_types
    assert input_names_of({"model_type": "roberta", "type_vocab_size": 2}) == with_types
    assert input_names_of({"model_type": "roberta", "type_vocab_size": 1}) == with_types[:2]
    assert input_names_of({"model_type": "distilbert"}) == input_names_of({"model_type": "mpnet"}) == with_types[:2]


def test_a_config_with_other_sizes_than_the_weights_is_reported(folder: Path) -> None:
    config(folder, vocab_size=61)
    with pytest.raises(Unsupported, match=r"do not match the weights, e\.g\. for .*word_embeddings"):
        load_encoder(folder)


def test_a_record_has_the_digest_of_the_weights_that_ran(folder: Path, tmp_path: Path) -> None:
    from backends.cache import digest_of

    checkpoint = find_checkpoint(ModelReference("trained", str(folder)), ArtifactCache(tmp_path))
    assert checkpoint.weights_sha256 == digest_of(folder / WEIGHTS)
