"""What can be asked for: the schemas that Hydra holds suites/conf/ and the command line against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from suites.backend_config import NullConfig, OrtConfig, PluginConfig, TorchConfig, TrtConfig
from suites.choices import (
    Activation,
    DeviceKind,
    Distribution,
    LabelReading,
    Layout,
    Method,
    Metric,
    Placement,
    Precision,
    Profiles,
    Scheme,
    SourceKind,
    Suite,
    Switch,
    TaskKind,
    TokenKind,
    Until,
    Weights,
)


@dataclass
class SuiteConfig:
    """How hard to measure; see suites/clock.py. A record keeps it, a cell does not."""

    name: Suite = Suite.latency
    warm_up_s: float = 3.0
    seconds: float = 1.0
    min_samples: int = 30
    max_samples: int = 1000
    tolerance: float = 0.02
    pairs_s: float = 5.0
    replay_s: float = 5.0
    starts: int = 5
    minimum_cosine: float = 0.5


@dataclass
class ModelConfig:
    """A model and where it comes from, see backends/checkpoint.py and backends/hub.py.

    `name` is empty unless it is given: then a model has the name that `names` has for its hub id, or that of its folder
    or hub id. `package` is a copy of the hub id `package_of` alone; its weights have the digest `package_sha256`.
    `tokenizer`: a folder whose tokenizer makes tokens of texts for random weights, which have none of their own.
    """

    name: str = ""
    names: dict[str, str] = field(default_factory=dict)
    hub: str = ""
    revision: str = "main"
    path: str = ""
    package: str = ""
    package_of: str = ""
    package_sha256: str = ""
    tokenizer: str = ""
    positions: int = 512
    architecture: dict[str, Any] = field(default_factory=dict)


@dataclass
class BackendConfig:
    """What the parent must know of a backend without importing it.

    `source` is what it builds from: nothing, a checkpoint, or the exported ONNX file (with its checkpoint).
    `time_limit` bounds each stage, in seconds.
    """

    name: str = "null"
    devices: list[str] = field(default_factory=lambda: ["cpu"])
    source: SourceKind = SourceKind.none
    interpreter: str = "main"
    cuda_graph: bool = True
    time_limit: float = 10.0


@dataclass
class PrecisionConfig:
    name: Precision = Precision.fp32


@dataclass
class QuantizationConfig:
    """Static quantization. `explicit` puts Q/DQ pairs into the ONNX file around the products that `placement` names
    (backends/quantize.py; `auto` is what runs fastest: `all_but_ffn_residual` for TensorRT, `gemm` for others);
    `implicit` leaves ranges and places to TensorRT's calibrator (method: minmax or entropy). `method`: what ranges
    of activations come from; `search` is by what they do to the outputs (backends/range_search.py). `leave_out`:
    patterns (fnmatch) of nodes that stay as they are, whatever the placement; with plugins, of those that stay
    FP16. `smooth`: SmoothQuant's alpha, 0 for none (backends/smooth.py; with plugins only where it folds into
    weights). `shift`: whether GELU's output is centred before symmetric INT8 (backends/shift.py). `exact_residual`:
    whether additions that are not quantized read what is added before it is rounded for products that read it too.
    `tokens`: what calibration reads, the task's text or random ids. With `qat_steps` the model is first trained
    under fake quantization to give its FP32 outputs (backends/qat.py), at most at `qat_rate`."""

    scheme: Scheme = Scheme.explicit
    placement: Placement = Placement.auto
    method: Method = Method.minmax
    percentile: float = 99.99
    samples: int = 64
    sequence: int = 128
    activation: Activation = Activation.auto
    per_channel: bool = True
    reduce_range: Switch = Switch.auto
    leave_out: list[str] = field(default_factory=list)
    smooth: float = 0.0
    shift: bool = False
    exact_residual: bool = False
    tokens: TokenKind = TokenKind.auto
    qat_steps: int = 0
    qat_rate: float = 1e-4


@dataclass
class TaskConfig:
    """What texts come from and what a model is judged by; see suites/tasks/task.py.

    `tolerance`: by how much a path's metric may fall below FP32's before its speed counts for nothing. Of tasks for a
    fine-tuned checkpoint: `subset` and `split` of a data set on the hub; `text`, `pair` (of pairs of texts) and
    `label`, the columns; `labels`, whether they are names of the checkpoint's or places in its outputs (`auto`: the one
    that fits all of them, see backends/labels.py); `metric` of classification. `calibration`: a file of texts that INT8
    is calibrated with, by default the task's own (of STS-B the development part, of BANKING77 the training part, for a
    fine-tuned checkpoint the project's sentences).
    """

    name: str = "sentences"
    kind: TaskKind = TaskKind.fidelity
    path: str = "suites/sentences.txt"
    hub: str = ""
    tolerance: float = 0.01
    subset: str = ""
    split: str = "validation"
    text: str = "text"
    pair: str = ""
    label: str = "label"
    labels: LabelReading = LabelReading.auto
    metric: Metric = Metric.accuracy
    calibration: str = ""


@dataclass
class SearchConfig:
    """When suites/search.py is content: within the task's tolerance and from this smallest cosine to FP32 on; 0 is 0.95
    for INT8 and FP8 and 0.999 for others. It stops after so many `steps` or `seconds`, where they are not 0, with the
    best that it has."""

    cosine: float = 0.0
    steps: int = 0
    seconds: float = 0.0


@dataclass
class LayersConfig:
    """Of suite=layers: how many outputs are marked in one engine, and the relative error that is past the threshold."""

    chunk: int = 16
    threshold: float = 0.05


@dataclass
class SwitchingConfig:
    """What suite=switching asks; see suites/switching.py.

    `repeats`: of each ordered pair of shapes, as far as `suite.pairs_s` allows. `requests`: of each trace (more where
    a shape would be left out, or fewer than a hundred would switch; served as far as `suite.replay_s` allows); one for
    each probability in `switch` that a request has another shape than the one before, one of the file `trace` (a batch
    and a sequence length a line), and one of `lengths`, where they differ. With requests=0 there are no traces.
    `pad_to`: shapes, [batch, sequence] each, that requests are padded up to; without them each runs as it is.
    """

    repeats: int = 20
    requests: int = 500
    switch: list[float] = field(default_factory=lambda: [0.0, 0.01, 0.1, 0.5, 1.0])
    trace: str = ""
    pad_to: list[list[int]] = field(default_factory=list)


@dataclass
class LengthsConfig:
    """How many tokens a sequence has, special ones included; see backends/inputs.py. `name` is that of the choice.

    `low` is of uniform and lognormal; `mean` and `sigma` (of the logarithm) of lognormal; `values` and `counts` of
    histogram; `path` of file. With `passes` above 1 a batch is sorted by length and run in so many passes, each padded
    to its longest sequence, rounded up to a `multiple` of tokens. Packed batches have no padding to save, but a kernel
    of attention for the longest sequence of a pass.
    """

    name: str = "full"
    distribution: Distribution = Distribution.full
    tokens: TokenKind = TokenKind.auto
    low: int = 8
    mean: float = 177.0
    sigma: float = 0.45
    values: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    path: str = ""
    passes: int = 1
    multiple: int = 16


@dataclass
class InterpreterConfig:
    """Python executables by the name that a backend asks for; an empty one stands for `main`, an empty `main` for the
    one that runs this."""

    main: str = ""
    trt: str = ""


@dataclass
class RunConfig:
    """`repeats`: fresh processes that measure a cell of suite=latency. The other suites measure in one."""

    suite: SuiteConfig = field(default_factory=SuiteConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    backend: BackendConfig = field(default_factory=BackendConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    layers: LayersConfig = field(default_factory=LayersConfig)
    switching: SwitchingConfig = field(default_factory=SwitchingConfig)
    lengths: LengthsConfig = field(default_factory=LengthsConfig)
    interpreter: InterpreterConfig = field(default_factory=InterpreterConfig)
    batch: list[int] = field(default_factory=lambda: [1, 8])
    sequence: list[int] = field(default_factory=lambda: [32, 128])
    profiles: Profiles = Profiles.per_shape
    keep_fp32: list[str] = field(default_factory=list)
    layout: Layout = Layout.packed
    pad_to_multiple_of: int = 1
    weights: Weights = Weights.trained
    seed: int = 0
    device: DeviceKind = DeviceKind.auto
    gpu: int = 0
    threads: int = 0
    repeats: int = 3
    until: Until = Until.measure
    rerun: bool = False
    results: str = "results/runs"
    cache: str = ".cache"
    null: NullConfig = field(default_factory=NullConfig)
    torch: TorchConfig = field(default_factory=TorchConfig)
    ort: OrtConfig = field(default_factory=OrtConfig)
    trt: TrtConfig = field(default_factory=TrtConfig)
    plugin: PluginConfig = field(default_factory=PluginConfig)


def plain(value: Any) -> Any:
    """A dataclass, enum or container of them as JSON types; enums by value where it is a word, else by name."""
    if isinstance(value, Enum):
        return value.value if isinstance(value.value, str) else value.name
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
