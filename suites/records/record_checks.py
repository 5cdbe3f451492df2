"""Checks of a record's JSON before it is used: types, required keys and names that become paths."""

from __future__ import annotations

from collections.abc import Mapping

from suites.records.value_types import (
    BadRecord,
    Check,
    each,
    fields,
    flag,
    is_a,
    machine,
    mapping,
    maybe_number,
    model,
    number,
    numbers,
    object_of,
    pair,
    positive,
    text,
    times,
    triples,
    values,
    whole,
    window,
    word,
)


def record_is_sound(data: Mapping[str, object]) -> None:
    """Check all fields of a record that tables and other commands read.

    Raises:
        BadRecord: a field is missing or has a wrong type.
    """
    RECORD(data, "")
    name = str(object_of(data["cell"], "cell")["suite"])
    suite = SCORES.get(name)
    needed = name in NEED_SCORES and data["outcome"] == "ok"
    if suite and (needed or data.get("scores")):
        suite(data.get("scores", {}), "scores")


def outcome(value: object, where: str) -> None:
    if value not in ("ok", "unsupported", "unavailable", "failed", "timeout"):
        raise BadRecord(f"{where} is not an outcome")


def environment(value: object, where: str) -> None:
    """Check the facts in table headings: name and driver of a GPU, or name and number of cores of a CPU."""
    kind = (
        {"gpu": text, "driver": text} if isinstance(value, dict) and "gpu" in value else {"cpu": text, "cores": whole}
    )
    fields({"machine": machine, **kind}, {"uuid": text, "cpu": text})(value, where)


CELL = fields(
    {
        "suite": word, "model": model, "weights": text, "model_version": text, "backend": word, "release": text,
        "precision": word, "device": text, "shapes": each(pair, 1),
        "lengths": fields({"distribution": text}, {"tokens": text,
            "task": text, "texts": text, "calibration": text, "choice": text, "values": numbers, "counts": numbers,
        }),
        "options": fields({}, {
            "profiles": text, "min": pair, "opt": pair, "max": pair, "ranges": each(numbers), "pad_to": each(pair),
            "quantization": mapping,
        }),
    }
)  # fmt: skip

MEASUREMENT = fields(
    {
        "phase": text, "batch": whole, "sequence": whole, "cuda_graph": flag, "samples": times,
        "windows": each(window),
        "steady": flag,
    },
    {
        "throttled": each(flag), "process": whole,
        "telemetry": fields({}, {
            "memory_bytes": number, "energy_mj_per_sequence": number, "other_processes": number,
            "throttle_reasons": each(text), "cpu_others": number, "cpu_resolution": number, "threads_used": whole,
        }),
    },
)  # fmt: skip


def measurement(value: object, where: str) -> None:
    MEASUREMENT(value, where)
    found = object_of(value, where)
    if not found["samples"] and not str(found["phase"]).startswith("replay"):
        raise BadRecord(f"{where}.samples is empty")


CHECKED = fields(
    {"batch": positive, "sequence": positive, "cuda_graph": flag, "nonfinite": whole, "cosine": maybe_number,
     "problem": text},
)  # fmt: skip

INPUTS = fields({"notes": fields({}, {"tokens": text, "shapes": values(fields({"tokens": whole})), "passes": mapping,
                                      "cut": whole, "texts": whole, "made_up": each(text)})})  # fmt: skip

BUILT = fields({}, {"seconds": number, "notes": fields({}, {"engine_bytes": number, "started_early_s": number,
                                                            "product_types": values(whole)})})  # fmt: skip

RECORD = fields(
    {
        "cell": CELL, "outcome": outcome, "reason": text, "environment": environment, "checks": each(CHECKED),
        "measurements": each(measurement), "command": each(text),
    },
    {
        "facts": mapping, "scores": mapping, "settings": mapping, "stages": values(number), "measured_at": text,
        "log_tail": text, "artifacts": fields({}, {"inputs": INPUTS, "built": BUILT, "onnx": mapping}),
        "maker": fields({}, {"version": text, "commit": text, "dirty": flag}), "harness": positive, "scoring": positive,
        "processes": each(fields({"process": whole, "measured_at": text, "facts": mapping})),
    },
)  # fmt: skip

_FIGURES = fields(
    {"value": number, "difference": number, "metric": text, "tolerance": number},
    {"low": number, "high": number, "verdict": text, "changed": number, "exact_match": number, "targets": text,
     "gates": flag, "reference_value": number, "cosine_min": number, "cosine_mean": number, "max_difference": number,
     "relative_error": number},
)  # fmt: skip


def _judged(value: object, where: str) -> None:
    """Check the scores of a task. Outputs that are not finite have no other figures."""
    fields({"nonfinite": whole})(value, where)
    if not object_of(value, where)["nonfinite"]:
        _FIGURES(value, where)


_LAYER = fields({"point": text, "nonfinite": whole}, {"max_difference": number, "relative_error": number,
                                                       "cosine_min": number})  # fmt: skip
_BUILD = fields({"kind": text, "setting": text}, {"seconds": number, "engine_bytes": whole, "plan": text,
                 "profiles": positive, "samples": each(positive, 1), "steady": flag, "output": text,
                 "cosine": maybe_number, "tactics": each(text), "layers": whole, "other_tactics": maybe_number,
                 "examples": each(text), "outcome": text, "reason": text})  # fmt: skip
_KERNEL = fields({"name": text, "nanoseconds": whole}, {"kind": text, "count": whole})
_TIMES = fields(dict.fromkeys(("mean", "p50", "p90", "p99", "p999", "max"), number))
_LOAD = fields({"purpose": text, "latency": _TIMES, "queue": _TIMES, "late": _TIMES, "batches": values(whole),
                **dict.fromkeys(("offered", "achieved", "seconds", "schedule_s"), number),
                **dict.fromkeys(("clients", "sent", "answered", "rejected", "too_long", "errors", "tokens",
                                 "padded_tokens", "session_ns", "dispatch_ns", "assembly_ns"), whole)},
               {"shares": each(number), "gpu_busy": maybe_number, "energy_mj": maybe_number,
                "cpu_others": maybe_number, "cpu_steal": maybe_number, "cpu_resolution": number,
                **dict.fromkeys(("start_ns", "replayed", "tokenize_ns"), whole)})  # fmt: skip

_STEP = fields({"held": each(text), "content": flag, "accuracy": text, "latency": text})
_VISITS = fields({"parts": values(triples), **dict.fromkeys(("copy", "enqueue", "step", "whole", "replayed"), triples)})
_BETWEEN = {"from": pair, "to": pair, "cuda_graph": flag}
_TIMED_SHAPE = fields({"batch": positive, "sequence": positive, "samples": each(positive, 1), "steady": flag},
                      {"padded": flag, "cuda_graph": flag, "again": each(positive)})  # fmt: skip
_LAUNCH = fields({"batch": positive, "sequence": positive, "cuda_graph": flag, "enqueue": each(positive, 1),
                  "steady": flag}, {"native": each(whole), "profiled_share": maybe_number, "busy": each(whole),
                                    "steps": each(whole)})  # fmt: skip
_GIVEN = {"units": whole, "total": whole}
_LIMITED = fields({"batch": positive, "sequence": positive, "share": number, "cuda_graph": flag, "steady": flag,
                   "latency": each(positive, 1), "sustained": each(positive, 1)},
                  {**_GIVEN, "built_share": number})  # fmt: skip
_CLIENT = fields({**dict.fromkeys(("client", "batch", "sequence"), positive), "cuda_graph": flag,
                  **dict.fromkeys(("alone", "together"), each(positive, 1))}, _GIVEN)  # fmt: skip
_LIMITED_BUILD = fields({"share": number}, {"seconds": number, "plan": text, "layers": whole, "other_tactics": whole,
                                            "tactics": each(text), "outcome": text, "reason": text})  # fmt: skip
_SHARED = fields({"sharing": text}, {"share": number, "latency": each(positive, 1), "steps": each(positive, 1),
                                     "batch": positive, "rejected": whole, **_GIVEN, "outcome": text,
                                     "reason": text})  # fmt: skip

NEED_SCORES = ("search", "layers", "ceilings", "building", "kernels", "serving", "alignment", "launch", "limits",
               "tritonserver")  # fmt: skip
"""Suites whose records with the outcome ok have scores."""

SCORES: Mapping[str, Check] = {
    "accuracy": _judged,
    "alignment": fields(
        {"sweeps": each(fields({"axis": text, "other": positive, "sizes": each(positive, 1),
                                "multiples": each(positive)}), 1),
         "shapes": each(_TIMED_SHAPE, 1),
         "variants": each(fields({"name": text, "size": whole, "value": whole, "exact": flag,
                                  "shapes": each(_TIMED_SHAPE)}, {"outcome": text, "reason": text}))},
        {"removes_padding": flag},
    ),
    "building": fields({"builds": each(_BUILD, 1)}),
    "ceilings": fields({"ceilings": each(fields({"name": text, "samples": each(positive, 1)}))}),
    "kernels": fields({"profiler": text, "samples": each(positive, 1), "kernels": each(_KERNEL)},
                      {"idle_ns": whole}),
    "launch": fields({"times": each(_LAUNCH, 1)}),
    "limits": fields({"method": text, "times": each(_LIMITED, 1)}, 
                     {"clients": each(_CLIENT), "builds": each(_LIMITED_BUILD), "loads": each(_SHARED),
                      "failures": each(fields({"share": number, "outcome": text, "reason": text}))}),
    "layers": fields({"layers": each(_LAYER), "threshold": number, "first": text}),
    "search": fields(
        {"held": is_a("a list of parts or null", lambda value: value is None or isinstance(value, list)),
         "parts": each(text), "steps": each(_STEP, 1), "tolerance": number, "cosine": number},
    ),
    "serving": fields({"points": each(_LOAD)}, {"service": values(_TIMES)}),
    "tritonserver": fields({"curves": each(fields({"path": text, "points": each(_LOAD, 1)}), 1), "version": text}),
    "switching": fields(
        {
            "openings": each(fields({"ns": values(number)}), 1),
            "cold": each(fields({"shape": pair, "where": text, "samples": _VISITS})),
            "transitions": each(fields({**_BETWEEN, "samples": _VISITS, "earlier": each(pair)})),
            "device": each(fields({**_BETWEEN, "first": numbers, "again": numbers})),
            "captures": each(fields({"shape": pair, "capture": numbers, "launch": numbers, "again": numbers,
                                     "bytes": numbers})),
            "replays": each(fields({"name": text, "cuda_graph": flag, "blocks": numbers, "switches": whole,
                                    "replayed": whole, "asked": whole})),
            "parity": each(fields({"cuda_graph": flag, "transitions": whole, "unequal": whole,
                                   "difference": maybe_number})),
        },
        {"starts": each(fields({"opening": values(number), "met": each(mapping)}))},
    ),
}  # fmt: skip
"""Checks of the scores that tables read, by suite."""
