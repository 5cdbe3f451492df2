"""config.pbtxt: its text, and its fields in Triton's own message if the package tritonclient is installed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.base import Artifact, BuildSpec, Device, Shape
from backends.model_output import Output
from backends.ort_.description import OrtOptions
from backends.served_model.served_facts import ServedFacts
from suites.deploying.config_text import Symbol, map_entries, text_of
from suites.deploying.container_model import write_warm_up
from suites.deploying.model_config import Batching, ModelConfig, Tensor, preferred_sizes
from suites.deploying.python_model import python_config

SHAPES = (Shape(1, 32), Shape(8, 32), Shape(4, 128))
IDS = tuple(Tensor(name, "TYPE_INT32", (-1,)) for name in ("input_ids", "attention_mask", "token_type_ids"))
PLAN = ModelConfig(
    "bert-trt", "tensorrt", "tensorrt_plan", "model.plan", 8, IDS, (Tensor("embedding", "TYPE_FP32", (384,)),),
    Batching(500, (4, 8), 64), instances=2, gpu=True, profiles=3, graphs=SHAPES[:2],
)  # fmt: skip


def parsed(text: str) -> Any:
    """Return the text as Triton's ModelConfig. An unknown field or a wrong type is an error."""
    pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient[grpc] is not installed")
    from google.protobuf import text_format

    return text_format.Parse(text, pb2.ModelConfig())


def test_scalars_messages_and_lists_as_text() -> None:
    message = {"a": 'quote " and \\', "b": True, "c": [1, 2], "d": {"e": Symbol("KIND")}, "f": map_entries({"g": "h"})}
    assert text_of(message) == (
        'a: "quote \\" and \\\\"\nb: true\nc: 1\nc: 2\nd {\n  e: KIND\n}\nf {\n  key: "g"\n  value: "h"\n}\n'
    )
    with pytest.raises(TypeError, match="float"):
        text_of({"a": 1.5})


@pytest.mark.parametrize(("built", "sizes"), [(True, (4, 8)), (False, (8,))])
def test_preferred_sizes(built: bool, sizes: tuple[int, ...]) -> None:
    assert preferred_sizes(SHAPES, built) == sizes


def test_the_configuration_of_a_plan_is_a_message_of_triton(tmp_path: Path) -> None:
    config = parsed(replace(PLAN, warm_up=write_warm_up(tmp_path, IDS, SHAPES)).text())
    assert (config.name, config.backend, config.platform) == ("bert-trt", "tensorrt", "tensorrt_plan")
    assert config.default_model_filename == "model.plan"
    assert [tuple(item.dims) for item in config.input] == [(-1,)] * 3
    batching = config.dynamic_batching
    assert (list(batching.preferred_batch_size), batching.max_queue_delay_microseconds) == ([4, 8], 500)
    assert batching.default_queue_policy.max_queue_size == 64
    (group,) = config.instance_group
    assert (group.count, list(group.profile), group.KIND_GPU) == (2, ["0", "1", "2"], group.kind)
    cuda = config.optimization.cuda
    assert cuda.graphs
    assert [(item.batch_size, item.input["input_ids"].dim[0]) for item in cuda.graph_spec] == [(1, 32), (8, 32)]
    warm = {item.name: item for item in config.model_warmup}
    assert list(warm) == ["1x32", "8x32", "4x128"]
    file = tmp_path / "warmup" / warm["8x32"].inputs["input_ids"].input_data_file
    assert np.frombuffer(file.read_bytes(), np.int32).tolist() == [1] * 8 * 32


@pytest.mark.parametrize("tokenizes", [True, False])
@pytest.mark.parametrize("output", [Output("hidden"), Output("embedding", per_token=False)])
def test_the_configuration_of_a_session_is_a_message_of_triton(tokenizes: bool, output: Output) -> None:
    spec = BuildSpec("fp32", Device(), SHAPES, False, Path("c"), OrtOptions(), output=output)
    artifact = Artifact(Path("m"), "a")
    facts = ServedFacts("ort", spec, artifact, ("input_ids",), tokenizes=tokenizes)
    config = parsed(python_config("m", facts, Batching(1000), 3).text())
    assert config.backend == "python"
    assert ("text" in [item.name for item in config.input]) is tokenizes
    assert all(item.optional for item in config.input)
    # Texts have one size, and requests of token ids may differ in length within a batch.
    assert all(item.allow_ragged_batch == (item.name not in ("text", "text_pair")) for item in config.input)
    (answer,) = config.output
    assert (answer.name, len(answer.dims)) == (output.kind, 2 if output.per_token else 1)
    (group,) = config.instance_group
    assert (group.count, group.kind) == (3, group.KIND_CPU)
    assert not parsed(python_config("m", facts, None, 1).text()).HasField("dynamic_batching")


def test_a_classifier_has_its_label_as_text() -> None:
    spec = BuildSpec("fp32", Device(), SHAPES, False, Path("c"), OrtOptions(), output=Output("logits", per_token=False))
    facts = ServedFacts("ort", spec, Artifact(Path("m"), "a"), ("input_ids",), labels=("no", "yes"))
    config = python_config("m", facts, None, 1)
    assert [(item.name, item.type, item.dims) for item in config.outputs] == [
        ("logits", "TYPE_FP32", (2,)), ("label", "TYPE_STRING", (1,)), ("probability", "TYPE_FP32", (1,))
    ]  # fmt: skip
