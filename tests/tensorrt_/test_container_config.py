"""The configuration of a TensorRT plan, from the description of its export. No plan is built here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from fake_api import fake_api

from backends.base import Artifact, BuildSpec, Device, Shape
from backends.deployment import Deployed, Deployment, TensorInfo
from backends.model_output import Output
from backends.tensorrt_.deploy_plan import deploy_plan
from backends.tensorrt_.onnx_backend import TensorRT
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi
from backends.tensorrt_.runtime.tensorrt_options import TensorRTOptions
from suites.deploying.container_model import container_config
from suites.deploying.model_config import Batching
from suites.exporting.manifest import ExportedModel
from suites.records.record import Record
from suites.schema.refusals import Refused

SHAPES = (Shape(1, 32), Shape(8, 32))
NAMES = ("input_ids", "attention_mask")
MakeRecord = Callable[..., Record]


OPTIONS = TensorRTOptions(min=[1, 32], opt=[8, 32], max=[8, 32])


def deployed(folder: Path, output: Output, precision: str = "fp32", api: TensorRTApi | None = None) -> Deployed:
    """Return the description of the export of a file that stands for a plan."""
    (folder / "plan").write_bytes(b"plan")
    spec = BuildSpec(precision, Device("cuda", name="H100"), SHAPES, True, folder, OPTIONS, output=output)
    artifact = Artifact(folder / "plan", "a" * 64, {"tensorrt": "10.0"})
    backend = TensorRT(lambda: api) if api else TensorRT()
    return deploy_plan(Deployment(backend, spec, artifact, folder, (), NAMES))[0]


def exported(deployed: Deployed, make_record: MakeRecord, **options: object) -> ExportedModel:
    record = make_record(
        backend="trt", device="cuda", shapes=[(1, 32), (8, 32)], options={"cuda_graph": True, **options}
    )
    return cast(ExportedModel, SimpleNamespace(record=record, deployed=deployed))


@pytest.mark.parametrize(
    ("output", "name", "dims"),
    [(Output("embedding", per_token=False), "embedding", (384,)), (Output(), "last_hidden_state", (-1, 384))],
)
def test_a_plan_has_its_inputs_outputs_profiles_and_graphs(
    output: Output, name: str, dims: tuple[int, ...], make_record: MakeRecord, tmp_path: Path
) -> None:
    np.savez(tmp_path / "expected.npz", **{"sample0/expected": np.zeros((3, 384), np.float32)})
    model = exported(deployed(tmp_path, output), make_record)
    config = container_config("m", model, tmp_path, Batching(100, (8,)))
    assert (config.backend, config.platform, config.file, config.gpu) == (
        "tensorrt",
        "tensorrt_plan",
        "model.plan",
        True,
    )
    assert [(tensor.name, tensor.type, tensor.dims) for tensor in config.inputs] == [
        (item, "TYPE_INT32", (-1,)) for item in NAMES
    ]
    assert [(tensor.name, tensor.type, tensor.dims) for tensor in config.outputs] == [(name, "TYPE_FP32", dims)]
    assert (config.profiles, config.graphs, config.largest) == (2, SHAPES, 8)
    without = exported(model.deployed, make_record, cuda_graph=False)
    assert container_config("m", without, tmp_path, None).graphs == ()


@pytest.mark.parametrize(
    ("precision", "can", "kind"),
    [("fp16", {"weak_typing"}, "TYPE_FP32"), ("fp16", set(), "TYPE_FP16"), ("bf16", set(), "TYPE_BF16"),
     ("fp32", set(), "TYPE_FP32")],
)  # fmt: skip
def test_the_output_of_a_strongly_typed_plan_has_the_type_of_the_graph(
    precision: str, can: set[str], kind: str, make_record: MakeRecord, tmp_path: Path
) -> None:
    np.savez(tmp_path / "expected.npz", **{"sample0/expected": np.zeros((3, 384), np.float32)})
    model = exported(deployed(tmp_path, Output(), precision, fake_api(can)), make_record)
    assert [tensor.type for tensor in container_config("m", model, tmp_path, None).outputs] == [kind]


def test_a_type_that_triton_lacks_is_refused(make_record: MakeRecord, tmp_path: Path) -> None:
    np.savez(tmp_path / "expected.npz", **{"sample0/expected": np.zeros((3, 384), np.float32)})
    changed = replace(deployed(tmp_path, Output()), outputs=(TensorInfo("x", "complex64", ("batch", "features")),))
    with pytest.raises(Refused, match="Triton has no type complex64, which x has; use --server python"):
        container_config("m", exported(changed, make_record), tmp_path, None)
