"""Sizes of an encoder from its config.json, and the number of operations of a forward pass.

Needs CPython 3.10 and the standard library alone: records hold these sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from backends.base import Unsupported
from backends.json_codec import from_json
from backends.json_part import Part, optional
from backends.model.families import family_of, size_of


@dataclass(frozen=True)
class EncoderSizes(Part):
    """Sizes that decide the number of operations.

    Attributes:
        hidden: features of a token between layers.
        attention, key_value: features of queries, and of keys or values; both are `hidden` in most families.
        intermediate: features between the products of the feed-forward network.
        gated: whether this network has a third product, whose output multiplies the activation (GLU).
        embedding: features of the token embedding if a product maps them to `hidden`, else 0.
        distances: embeddings of distances with which attention has products; 0 without them.
        distance_products: number of these products in a layer: content with position (c2p), position with content
            (p2c).
        convolution: features of a token's neighbourhood that a convolution after the first layer reads; 0 without it.
    """

    layers: int
    hidden: int
    attention: int
    key_value: int
    intermediate: int
    gated: bool = optional(False)
    embedding: int = optional(0)
    distances: int = optional(0)
    distance_products: int = optional(0)
    convolution: int = optional(0)

    def operations(self, tokens: int, sequence: float) -> float:
        """Return the multiplications and additions in the matrix products of a forward pass.

        With E = hidden, A = attention, K = key_value, I = intermediate and F = 2, or 3 if gated, a token takes in each
        layer 2 (2 E A + 2 E K) for queries, output, keys and values, 2 F E I for the feed-forward network, and 4 A S
        for its scores with S keys and the weighted sum of S values. For BERT, with A = K = E and F = 2, this is
        2 (4 E^2 + 2 E I) + 4 E S. A mapped embedding adds 2 times its features times E for each token.

        Disentangled attention (DeBERTa) adds 2 A D for each of its products of queries or keys with D embeddings of
        distances: D is twice position_buckets, or without buckets twice max_relative_positions. The projections of
        these embeddings depend on weights only, so exported graphs compute them once, and they are not counted. A
        convolution with width W and G groups adds 2 E (E / G) W for each token, once.

        The formula is that of Narayanan et al., Efficient Large-Scale Language Model Training on GPU Clusters Using
        Megatron-LM, 2021, appendix "Floating-point operations", for a forward pass without its vocabulary and with
        I in place of 4 E. Norms, activations, softmax, embeddings and the head are not counted: they are no matrix
        products of tokens. Attention within a window counts as attention over all keys, as the backends compute it.

        Args:
            tokens: tokens that are computed, over all sequences.
            sequence: keys that each token attends to. For packed sequences of several lengths, their mean length gives
                a lower bound.
        """
        projections = 2 * self.hidden * (2 * self.attention + 2 * self.key_value)
        network = 2 * (3 if self.gated else 2) * self.hidden * self.intermediate
        attention = 4 * self.attention * sequence + 2 * self.attention * self.distances * self.distance_products
        outside = 2 * self.hidden * (self.embedding + self.convolution)
        return tokens * (self.layers * (projections + network + attention) + outside)

    def values_moved(self, tokens: int) -> int:
        """Return the numbers that the products of a forward pass read and write, each operand and output once.

        A layer reads its weights, 2 E A + 2 E K + F E I, once for all tokens. For each token, queries, keys and values
        read E and write A + 2 K; attention, as one kernel, reads these and writes A; its output product reads A and
        writes E; the feed-forward network reads E, writes (F - 1) I, reads I and writes E. Letters are those of
        `operations`. This is the least traffic without fusion of products: norms, residuals, activations, biases,
        embeddings and the head are not counted.
        """
        linear = 3 if self.gated else 2
        weights = 2 * self.hidden * (self.attention + self.key_value) + linear * self.hidden * self.intermediate
        attention = 2 * (self.attention + 2 * self.key_value) + 2 * self.attention
        activations = 4 * self.hidden + attention + linear * self.intermediate
        return self.layers * (weights + tokens * activations)


def encoder_sizes(config: Mapping[str, object]) -> EncoderSizes | None:
    """Return the sizes of the encoder of a config.json; None if its operations are not counted.

    The formula does not cover a model type that the project does not know, and a config.json without one of the sizes.
    """
    try:
        family = family_of(config)
        hidden, heads = size_of(config, "hidden_size"), size_of(config, "num_attention_heads")
        head = _size(config, "head_dim", hidden // heads)
        embedding = _size(config, "embedding_size", hidden)
        sizes = EncoderSizes(
            layers=size_of(config, "num_hidden_layers"),
            hidden=hidden,
            attention=heads * head,
            key_value=_size(config, "num_key_value_heads", heads) * head,
            intermediate=size_of(config, "intermediate_size"),
            gated=family.gated,
            embedding=0 if embedding == hidden else embedding,
        )
        return _with_distances(sizes, config) if family.attention == "disentangled" else sizes
    except (Unsupported, ValueError, ZeroDivisionError):
        return None


def _with_distances(sizes: EncoderSizes, config: Mapping[str, object]) -> EncoderSizes:
    """Return the sizes of DeBERTa, with its products of distances and its convolution."""
    convolution = sizes.hidden // _size(config, "conv_groups", 1) * max(_size(config, "conv_kernel_size", 0), 0)
    # Files have a list of names, or names joined by "|".
    names = config.get("pos_att_type")
    products = [name for name in ("c2p", "p2c") if isinstance(names, list | tuple | str) and name in names]
    if not config.get("relative_attention") or not products:
        return replace(sizes, convolution=convolution)
    span = _size(config, "position_buckets", -1)
    if span < 1:
        span = _size(config, "max_relative_positions", -1)
    if span < 1:
        span = _size(config, "max_position_embeddings", family_of(config).positions)
    return replace(sizes, convolution=convolution, distances=2 * span, distance_products=len(products))


def _size(config: Mapping[str, object], name: str, default: int) -> int:
    value = config.get(name)
    return default if value is None else from_json(int, value, name)
