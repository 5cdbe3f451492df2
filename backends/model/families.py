"""Model families: the only place with facts about them. A new family needs an entry of FAMILIES, and nothing else.

Functions of `config` take the contents of a config.json as returned by `read_config` in
backends/model/checkpoint_files.py. backends/model/layer_names.py derives the names of a graph's nodes from LayerNames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from backends.base import Unsupported
from backends.json_codec import from_json
from backends.model.head_names import HeadNames
from backends.model.layer_names import LayerNames

Config = Mapping[str, object]

BERT_NAMES = LayerNames()

BERT_HEADS = HeadNames()
MODERNBERT_HEAD = ("head.dense", "classifier_activation|gelu", "head.norm", "classifier")
ROBERTA_HEADS = HeadNames(("classifier.dense", "tanh", "classifier.out_proj"))


@dataclass(frozen=True)
class Family:
    """Properties in which model families differ.

    Attributes:
        token_types: when token types are an input of the model: "always", "several" (only if the checkpoint has more
            than one type), "optional" (as "several", and a checkpoint may have none), or "never".
        positions_from: position of the first token: "zero", "padding" (pad_token_id + 1), or "two" for every padding
            id.
        attention: how attention uses positions: "absolute" (not at all, only the embeddings do), "bias", "rotary" or
            "disentangled". backends/model/adapted_encoders.py has their code.
        layer_names: paths of its modules; None if its layers share weights.
        vocabulary, positions, types: vocab_size, max_position_embeddings and type_vocab_size of a config.json without
            these fields; the defaults of transformers.
        more_settings: fields of config.json that transformers reads without declaring them.
        settings: names of fields of config.json that differ from BERT's, by BERT's name.
        fusion: model type for the optimizer of onnxruntime.
        heads: layers of its heads.
        gated: whether its feed-forward network has a third product, whose output multiplies the activation (GLU).
        fused_embeddings: whether that optimizer fuses the embeddings exactly.
    """

    token_types: str = "always"
    positions_from: str = "zero"
    attention: str = "absolute"
    layer_names: LayerNames | None = BERT_NAMES
    vocabulary: int = 30522
    positions: int = 512
    types: int = 2
    more_settings: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    fusion: str = "bert"
    heads: HeadNames = BERT_HEADS
    fused_embeddings: bool = True
    gated: bool = False

    @property
    def named_layers(self) -> bool:
        """Whether options that need roles of modules support its layers: plain weights, marked layers, some of INT8."""
        return self.layer_names is not None and self.attention == "absolute"


DISTILBERT = Family(
    token_types="never",
    layer_names=LayerNames(
        "transformer.layer", "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin",
        attention_norm="sa_layer_norm", ffn_up="ffn.lin1", activation="ffn.activation", ffn_down="ffn.lin2",
        ffn_norm="output_layer_norm",
    ),
    settings={
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
    },
    heads=HeadNames(("pre_classifier", "relu", "classifier")),
)  # fmt: skip

MPNET = Family(
    token_types="never",
    positions_from="two",
    attention="bias",
    layer_names=LayerNames(
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        attention_output="attention.attn.o",
        attention_norm="attention.LayerNorm",
    ),
    vocabulary=30527,
    heads=ROBERTA_HEADS,
)

ROTARY_NAMES = LayerNames(
    "layers", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    attention_norm="post_attention_layernorm", ffn_up="mlp.up_proj", activation="mlp.act_fn",
    ffn_down="mlp.down_proj", ffn_norm="post_mlp_layernorm",
)  # fmt: skip

GTE = Family(
    "optional", attention="rotary", layer_names=ROTARY_NAMES, vocabulary=250048, positions=8192, types=1, gated=True
)

JINA = Family(
    "several",
    attention="rotary",
    layer_names=replace(ROTARY_NAMES, ffn_up="mlp.fc1", activation="mlp.activation_fn", ffn_down="mlp.fc2"),
    vocabulary=250002,
    positions=8194,
    types=1,
    heads=ROBERTA_HEADS,
)

EUROBERT = Family(
    "never",
    attention="rotary",
    layer_names=replace(
        ROTARY_NAMES, word="embed_tokens", attention_norm="input_layernorm", ffn_norm="post_attention_layernorm"
    ),
    vocabulary=128256,
    positions=8192,
    heads=HeadNames(("dense", "gelu", "classifier"), pooling="classifier_pooling|late"),
    gated=True,
)

MODERNBERT = Family(
    "never",
    attention="rotary",
    layer_names=LayerNames(
        "layers", "attn.Wqkv", "attn.Wqkv", "attn.Wqkv", "attn.Wo", "attn_norm", "mlp.Wi", "mlp.act", "mlp.Wo",
        "mlp_norm", word="embeddings.tok_embeddings", embeddings_norm="embeddings.norm",
    ),
    vocabulary=50368,
    positions=8192,
    more_settings=("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta"),
    heads=HeadNames(*(MODERNBERT_HEAD,) * 3, pooling="classifier_pooling|cls"),
    gated=True,
)  # fmt: skip

DEBERTA = Family(
    "optional",
    attention="disentangled",
    layer_names=LayerNames(
        query="attention.self.query_proj", key="attention.self.key_proj", value="attention.self.value_proj"
    ),
    vocabulary=128100,
    types=0,
    more_settings=(
        "position_buckets", "share_att_key", "norm_rel_ebd", "embedding_size", "attention_head_size",
        "conv_kernel_size", "conv_act", "conv_groups",
    ),
    heads=HeadNames(("pooler.dense", "pooler_hidden_act|gelu", "classifier")),
)  # fmt: skip

FAMILIES: Mapping[str, Family] = {
    "bert": Family(),
    "ernie": Family(fused_embeddings=False),  # the optimizer would drop the embedding of the task
    "electra": Family(heads=HeadNames(("classifier.dense", "gelu", "classifier.out_proj"))),
    "roberta": Family(token_types="several", positions_from="padding", vocabulary=50265, heads=ROBERTA_HEADS),
    "xlm-roberta": Family(token_types="several", positions_from="padding", heads=ROBERTA_HEADS),
    "camembert": Family(token_types="several", positions_from="padding", heads=ROBERTA_HEADS),
    "distilbert": DISTILBERT,
    "albert": Family(layer_names=None, vocabulary=30000, heads=HeadNames(("pooler", "tanh", "classifier"))),
    "mpnet": MPNET,
    "gte": GTE,
    "nomic_bert": Family(attention="rotary", layer_names=ROTARY_NAMES, vocabulary=30528, positions=2048, gated=True),
    "jina_embeddings_v3": JINA,
    "eurobert": EUROBERT,
    "modernbert": MODERNBERT,
    "deberta-v2": DEBERTA,
}


def family_of(config: Config) -> Family:
    """Return the family of a checkpoint. Raise Unsupported if it is not in FAMILIES."""
    name = str(config.get("model_type"))
    if name not in FAMILIES:
        raise Unsupported(f"model type {name!r} is not one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def position_offset(config: Config) -> int:
    """Return the row of the position embedding of the first token. Raise ValueError as `uncounted_id` does."""
    uncounted = uncounted_id(config)
    return 0 if uncounted is None else uncounted + 1


def uncounted_id(config: Config) -> int | None:
    """Return the id of the tokens that transformers leaves out when it counts positions; None if it counts all tokens.

    All these tokens have the position of padding, and the tokens after them lower ones.

    Raises:
        ValueError: the family counts positions from the padding id and config.json has none.
    """
    family = _family(config)
    if family.positions_from == "two":
        return 1
    if family.positions_from == "zero":
        return None
    padding = config.get("pad_token_id", 1)
    if padding is None:
        raise ValueError(
            f"config.json has pad_token_id null; model type {config['model_type']!r} numbers its positions from it: "
            "set pad_token_id, usually to 1"
        )
    return _whole(config, "pad_token_id", 1)


def _family(config: Config) -> Family:
    """Return the family of a checkpoint, or BERT for a model type that is not in FAMILIES."""
    return FAMILIES.get(str(config.get("model_type")), Family())


def _whole(config: Config, name: str, default: int) -> int:
    return from_json(int, config.get(name, default), name)


def positions_of(config: Config) -> int:
    """Return the largest number of tokens in a sequence. Raise ValueError as `position_offset` does."""
    return _whole(config, "max_position_embeddings", _family(config).positions) - position_offset(config)


def setting_of(config: Config, name: str) -> object:
    """Return the field of config.json that BERT calls `name`; None if it is missing."""
    return config.get(name, config.get(family_of(config).settings.get(name, name)))


def size_of(config: Config, name: str) -> int:
    """Return the integer in config.json that BERT calls `name`. Raise ValueError if it is missing or no integer."""
    return from_json(int, setting_of(config, name), name)


def least_types(config: Config) -> int:
    """Return the smallest type_vocab_size that a checkpoint of the family may have."""
    return 0 if _family(config).token_types == "optional" else 1


def names_of_setting(name: str) -> tuple[str, ...]:
    """Return the names of a field of config.json in all families; BERT's name comes first."""
    return tuple(dict.fromkeys((name, *(family.settings.get(name, name) for family in FAMILIES.values()))))


def layer_names_of(config: Config) -> LayerNames:
    """Return the paths of the encoder's modules. Raise Unsupported if the family's layers share weights."""
    names = family_of(config).layer_names
    if names is None:
        raise Unsupported(f"layers of model type {config['model_type']!r} share weights and have no names of their own")
    return names


def node_at(name: str) -> tuple[int, str] | None:
    """Return the layer and the name in NODES (backends/model/layer_names.py) of a graph's node; None for others."""
    return next((place for names in _graph_names() if (place := names.node_at(name))), None)


def point_at(name: str) -> str:
    """Return the point of a graph's node: "embeddings", PROJECTION or "<layer>/<point>"; empty if it has none."""
    return next((point for names in _graph_names() if (point := names.point_at(name))), "")


def _graph_names() -> tuple[LayerNames, ...]:
    """Return the names of all families with named layers. A graph does not contain the name of its family."""
    named = (family.layer_names for family in FAMILIES.values() if family.named_layers)
    return tuple(dict.fromkeys(names for names in named if names))


def token_types_of(config: Config) -> int:
    """Return the number of token types; 0 if token types are not an input."""
    family = family_of(config)
    count = _whole(config, "type_vocab_size", family.types)
    if family.token_types == "never" or (family.token_types != "always" and count < 2):
        return 0
    return count


def input_names_of(config: Config) -> tuple[str, ...]:
    """Return the names of the encoder's inputs in the order of its ONNX file."""
    return ("input_ids", "attention_mask") + (("token_type_ids",) if token_types_of(config) else ())


def vocabulary_of(config: Config) -> int:
    """Return the number of rows of the token embedding."""
    return _whole(config, "vocab_size", _family(config).vocabulary)


def padding_id(config: Config) -> int:
    """Return the id of padding tokens; 0 if config.json gives none or one out of range.

    Attention masks padding, so each row of the embedding gives the same result.
    """
    padding = config.get("pad_token_id")
    return padding if isinstance(padding, int) and 0 <= padding < vocabulary_of(config) else 0
