"""Enumerations: the choices of configuration keys that allow only a few values."""

from __future__ import annotations

from enum import Enum

Until = Enum("Until", ["export", "build", "measure"])
Precision = Enum("Precision", ["fp32", "tf32", "fp16", "bf16", "fp8", "int8"])
OutputKind = Enum("OutputKind", ["auto", "hidden", "embedding", "logits", "spans", "score"])
DeviceKind = Enum("DeviceKind", ["auto", "cpu", "cuda"])
Weights = Enum("Weights", ["trained", "random"])
Distribution = Enum("Distribution", ["full", "uniform", "texts", "file", "histogram", "lognormal"])
TaskKind = Enum(
    "TaskKind",
    [
        "fidelity",
        "stsb",
        "banking77",
        "sequence_classification",
        "question_answering",
        "pairs",
        "retrieval",
        "reranking",
        "regression",
        "multi_label",
        "token_classification",
        "mteb",
    ],
)
Metric = Enum("Metric", ["accuracy", "f1", "matthews"])
Profiler = Enum("Profiler", ["library", "ncu", "nsys"])
Rank = Enum("Rank", ["gpu", "request"])
LabelReading = Enum("LabelReading", ["auto", "names", "places"])
Arrivals = Enum("Arrivals", ["poisson", "bursts", "trace", "closed"])
RequestInput = Enum("RequestInput", ["ids", "text"])
Pool = Enum("Pool", ["threads", "processes"])
PadTo = Enum("PadTo", ["longest", "built"])
LimitMethod = Enum("LimitMethod", ["green", "mps"])
Protocol = Enum("Protocol", ["grpc", "http"])
