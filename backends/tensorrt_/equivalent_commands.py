"""Commands of trtexec and polygraphy that build and time the engine of a cell of backend trt.

Flags of trtexec: samples/common/sampleOptions.cpp of TensorRT's repository, releases 8.6, 10 and 11. Flags of
polygraphy: `polygraphy run --help`. A test checks each flag.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from backends.base import Shape
from backends.options import Profiles
from backends.profiles import Profile, RecordedProfiles, choose_profile, plan_profiles
from backends.value_checks import Refused
from backends.vendor_tools import RecordedCell, ToolCommand, ToolCommands

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Inputs of the exported graph of BERT, each [batch, sequence]."""

ONNX, PLAN = "model.onnx", "model.plan"

VALUE_RANGES = ("input_ids:[0,100]", "attention_mask:[1,1]", "token_type_ids:[0,0]")
"""Random inputs of polygraphy: token ids that every vocabulary has, and no padding."""

SESSION_OPTIONS = ("contexts", "engines", "share_engine", "memory_mb")
"""Options of the suite's sessions."""


def onnx_commands(cell: RecordedCell) -> ToolCommands:
    """Return the commands for a cell of backend trt: build, time each shape, and the same with polygraphy."""
    flags = _Flags(cell)
    if flags.one_profile_per_engine:
        builds = [
            flags.build(f"Build the engine of profile {index}, {profile}.", [profile], flags.plan(index))
            for index, profile in enumerate(flags.profiles)
        ]
    else:
        builds = [flags.build("Build the engine.", flags.profiles, PLAN)]
    times = [flags.time(shape) for shape in flags.shapes]
    polygraphy = [
        ToolCommand(f"Build the engine and run {shape} with polygraphy.", flags.polygraphy(shape))
        for shape in flags.shapes[:1]
    ]
    return ToolCommands([*builds, *times, *polygraphy], flags.notes())


def no_commands(cell: RecordedCell) -> ToolCommands:
    """Refuse a cell of backend trt_plugin."""
    raise Refused(
        "trtexec and polygraphy build from an ONNX file, but backend=trt_plugin builds its network from plugins, layer "
        "by layer; give a cell of backend=trt"
    )


class _Flags:
    """The engine of a cell, and flags for it."""

    def __init__(self, cell: RecordedCell) -> None:
        self.options, self.precision = cell.options, cell.precision
        self.version = _version(cell.release)
        self.shapes = [Shape(*shape) for shape in cell.shapes]
        sizes = {name: list(self.options[name]) for name in ("min", "opt", "max")}
        ranges = [list(ends) for ends in self.options.get("ranges", ())]
        self.profiles = plan_profiles(
            self.shapes, RecordedProfiles(profiles=Profiles[self.options["profiles"]], ranges=ranges, **sizes)
        )
        self.weak_typing = self.version < (11,)
        self.types_from_graph = not self.weak_typing or (self.version >= (10,) and self.options["types"] == "graph")

    @property
    def one_profile_per_engine(self) -> bool:
        """Whether trtexec of this release cannot build the engine with all its profiles."""
        return self.version < (10,) and len(self.profiles) > 1

    def plan(self, index: int) -> str:
        """Return the file name of the engine that has a profile."""
        return f"model-{index}.plan" if self.one_profile_per_engine else PLAN

    def build(self, purpose: str, profiles: Sequence[Profile], plan: str) -> ToolCommand:
        words = ["trtexec", f"--onnx={ONNX}", f"--saveEngine={plan}", *self._precision(), *self._builder()]
        for index, profile in enumerate(profiles):
            words += [f"--profile={index}"] if len(profiles) > 1 else []
            words += [f"--{name}Shapes={_trtexec_shapes(getattr(profile, name))}" for name in ("min", "opt", "max")]
        return ToolCommand(purpose, [*words, "--skipInference"])

    def time(self, shape: Shape) -> ToolCommand:
        """Return the command that times one shape and writes the times of each inference."""
        index = choose_profile(self.profiles, shape)
        words = ["trtexec", f"--loadEngine={self.plan(index)}", f"--shapes={_trtexec_shapes(shape)}"]
        if len(self.profiles) > 1 and not self.one_profile_per_engine:
            words.append(f"--useProfile={index}")
        graph = bool(self.options.get("cuda_graph"))
        if self.version >= (11,):
            words += [] if graph else ["--noCudaGraph"]
        else:
            words += ["--noDataTransfers", "--useSpinWait", *(["--useCudaGraph"] if graph else [])]
        words += [f"--staticPlugins={name}" for name in self._libraries()]
        how = "with a CUDA graph" if graph else "without CUDA graph"
        return ToolCommand(f"Time {shape} {how}.", [*words, f"--exportTimes=times-{shape}.json"])

    def _precision(self) -> list[str]:
        words = [] if self.precision == "tf32" else ["--noTF32"]
        if self.types_from_graph:
            return [*words, *(["--stronglyTyped"] if self.weak_typing else [])]
        return [*words, *(f"--{name}" for name in self._precisions())]

    def _precisions(self) -> tuple[str, ...]:
        """Return the builder flags in addition to TF32. INT8 and FP8 also set FP16, as the suite does."""
        return {
            "fp16": ("fp16",), "bf16": ("bf16",), "int8": ("fp16", "int8"), "fp8": ("fp16", "fp8"),
        }.get(self.precision, ())  # fmt: skip

    def _builder(self) -> list[str]:
        options = self.options
        words = [f"--builderOptimizationLevel={options['optimization_level']}"]
        if options["workspace_mb"]:
            words.append(f"--memPoolSize=workspace:{options['workspace_mb']}M")
        if options["aux_streams"] >= 0:
            words.append(f"--maxAuxStreams={options['aux_streams']}")
        if options.get("timing_iterations"):
            words.append(f"--avgTiming={options['timing_iterations']}")
        flags = {
            "hardware_compatible": "--hardwareCompatibilityLevel=ampere+",
            "version_compatible": "--versionCompatible",
            "refit": "--refit",
        }
        words += [flag for name, flag in flags.items() if options[name]]
        words.append(f"--profilingVerbosity={options['verbosity']}")
        return [*words, *(f"--staticPlugins={name}" for name in self._libraries())]

    def polygraphy(self, shape: Shape) -> list[str]:
        """Return the command that builds the whole engine and runs one shape."""
        options, words = self.options, ["polygraphy", "run", ONNX, "--trt"]
        if self.types_from_graph:
            words += ["--strongly-typed"]
        else:
            words += [f"--{name}" for name in self._precisions()]
        words += ["--tf32"] if self.precision == "tf32" else []
        words += ["--builder-optimization-level", str(options["optimization_level"])]
        words += ["--pool-limit", f"workspace:{options['workspace_mb']}M"] if options["workspace_mb"] else []
        words += ["--max-aux-streams", str(options["aux_streams"])] if options["aux_streams"] >= 0 else []
        words += ["--hardware-compatibility-level", "ampere_plus"] if options["hardware_compatible"] else []
        words += ["--version-compatible"] if options["version_compatible"] else []
        words += ["--refittable"] if options["refit"] else []
        words += ["--profiling-verbosity", options["verbosity"]]
        if sources := options["tactic_sources"]:
            words += ["--tactic-sources", *(name for name in sources if name != "none")]
        words += ["--plugins", *libraries] if (libraries := self._libraries()) else []
        for profile in self.profiles:
            for name in ("min", "opt", "max"):
                words += [f"--trt-{name}-shapes", *_polygraphy_shapes(getattr(profile, name))]
        index = choose_profile(self.profiles, shape)
        words += ["--optimization-profile", str(index)] if len(self.profiles) > 1 else []
        words += ["--input-shapes", *_polygraphy_shapes(shape), "--val-range", *VALUE_RANGES]
        return [*words, "--save-engine", PLAN]

    def _libraries(self) -> list[str]:
        """Return the file names of plugin libraries. A cell has each with its digest and without its folder."""
        return [str(name).rpartition(" ")[0] or str(name) for name in self.options["plugin_libraries"]]

    def notes(self) -> list[str]:
        """Return the facts to know, and the parts of the cell that the commands do not have."""
        options = self.options
        notes = [
            f"Inputs are those of BERT: {', '.join(INPUTS)}. Remove token_type_ids for a model without it, such as "
            "DistilBERT or RoBERTa.",
            "trtexec fills inputs with random numbers, which may not be token ids; --loadInputs gives others.",
        ]
        if self.one_profile_per_engine:
            notes.append(
                f"trtexec of this release builds one profile in an engine, but the engine of the cell has "
                f"{len(self.profiles)}. With several profiles INT8 may use other tactics."
            )
        notes += _unexpressed(self, options)
        if self.version >= (11,):
            notes.append("trtexec of TensorRT 11 replays CUDA graphs and copies no data by default.")
        return notes


def _unexpressed(flags: _Flags, options: Mapping[str, Any]) -> list[str]:
    """Return a note for each option that the commands do not have."""
    notes = []
    if flags.precision in ("int8", "fp8"):
        if options.get("quantization", {}).get("scheme") == "implicit":
            notes.append(
                "Implicit calibration: the suite calibrates on texts. trtexec uses random ranges without --calib=FILE, "
                "and polygraphy calibrates on random inputs without --calibration-cache FILE."
            )
        else:
            notes.append(f"The ranges of {flags.precision.upper()} are the Q/DQ nodes of {ONNX}.")
    if kept := options["keep_fp32"]:
        notes.append(
            f"keep_fp32={','.join(kept)}: "
            + (
                f"the casts are in {ONNX}."
                if flags.types_from_graph
                else "not expressed. --layerPrecisions of trtexec and --layer-precisions of polygraphy take full names "
                "of layers and no patterns; add --precisionConstraints=obey or --precision-constraints obey."
            )
        )
    if flags.types_from_graph and flags.precision not in ("fp32", "tf32"):
        notes.append(f"Precisions are the types of {ONNX}.")
    if rewrites := options["rewrites"]:
        notes.append(f"trt.rewrites={','.join(rewrites)} changed {ONNX} before the build.")
    if sources := options["tactic_sources"]:
        notes.append(
            f"trt.tactic_sources={','.join(sources)}: not expressed for trtexec, whose --tacticSources adds to the "
            "default sources or removes from them."
        )
    if options.get("timing_iterations"):
        notes.append(f"trt.timing_iterations={options['timing_iterations']}: polygraphy has no such flag.")
    if options["plugin_libraries"]:
        notes.append("Plugin libraries: give their paths; the cell has only their file names.")
    for name in SESSION_OPTIONS:
        if name in options:
            notes.append(f"trt.{name}={options[name]}: not expressed; sessions of the suite do it.")
    return notes


def _version(release: str) -> tuple[int, ...]:
    """Return the version in a release such as "tensorrt 8.6.0"."""
    if release.startswith("tensorrt-rtx"):
        raise Refused("trtexec and polygraphy have no builder of TensorRT-RTX; give a cell of TensorRT 8.6, 10 or 11")
    found = re.search(r"(\d+(?:\.\d+)*)\s*$", release)
    if found is None:
        raise Refused(f"the release {release!r} of the cell has no version, so the flags of its tools are not known")
    return tuple(int(part) for part in found.group(1).split("."))


def _trtexec_shapes(shape: Shape) -> str:
    return ",".join(f"{name}:{shape}" for name in INPUTS)


def _polygraphy_shapes(shape: Shape) -> list[str]:
    return [f"{name}:[{shape.batch},{shape.sequence}]" for name in INPUTS]
