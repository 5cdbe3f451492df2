"""Write a model repository of Triton Inference Server for the model of a record.

The folder of the model has config.pbtxt, the folder 1 of its only version, and manifest.json with the digests of all
files. A repository can have several models.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from backends.base import Artifact, Shape
from backends.cache import digest_of
from backends.description import HIDDEN_STATES, SourceKind
from backends.inputs.samples import read_samples
from backends.json_codec import to_json
from backends.model.checkpoint_files import INDEX, read_config, weight_files
from backends.model.families import uncounted_id
from backends.model.labels import label_names
from backends.model_output import LOGITS
from backends.registry import describe
from backends.served_model.served_facts import ServedFacts
from suites.deploying.batching_rules import SERVING_SUITES, BatchingRules, as_latency
from suites.deploying.container_model import container_config, write_warm_up
from suites.deploying.model_config import Batching, preferred_sizes
from suites.deploying.python_model import VERSION, python_config, write_python_model
from suites.exporting.export_cell import CellExport, PreparedExport
from suites.exporting.find_record import EXPORTED_SUITES, check_model, check_served
from suites.exporting.manifest import FORMAT
from suites.exporting.target_folder import MANIFEST
from suites.records.record import Record
from suites.records.suite_version import maker, typed_command
from suites.running.stages import Progress
from suites.schema.refusals import Refused

CONTAINER, PYTHON = "container", "python"
"""Servers: that of NVIDIA's container, with its own backends; and any server with the Python backend."""

FILES = "model"
"""Folder of the built model in the folder of a version."""


@dataclass(frozen=True)
class RepositoryModel:
    """A model of a repository.

    Attributes:
        name: name of the model in the repository.
        server: CONTAINER or PYTHON.
        rules: rules of batches.
        words: words of the command line that replace those of the cell, such as model.path=FOLDER.
    """

    record: Record
    name: str
    server: str
    rules: BatchingRules
    words: Sequence[str]
    progress: Progress

    def write(self, folder: Path) -> list[str]:
        """Write all files to the folder of the model; return warnings.

        Raises:
            Refused: the model cannot be exported here.
            StageFailed: a stage failed.
        """
        export = CellExport(as_latency(self.record), self.words, self.progress)
        warnings = self._container(export, folder) if self.server == CONTAINER else self._python(export, folder)
        (folder / MANIFEST).write_text(json.dumps(self._manifest(folder), indent=1) + "\n", encoding="utf-8")
        return warnings

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Built shapes of the model."""
        return tuple(Shape(*shape) for shape in self.record.cell.options.get("pad_to") or self.record.cell.shapes)

    @property
    def pads_to_built(self) -> bool:
        """Whether batches are padded to built shapes."""
        chosen = self.rules.pads_to_built
        return describe(self.record.cell.backend).prefers_built_shapes if chosen is None else chosen

    @property
    def batching(self) -> Batching | None:
        """Rules of the dynamic batcher; None for one request at a time."""
        largest = self.largest
        if largest == 1:
            return None
        sizes = preferred_sizes([shape for shape in self.shapes if shape.batch <= largest], self.pads_to_built)
        return Batching(self.rules.delay_us, sizes, self.rules.queue)

    @property
    def largest(self) -> int:
        """Most rows of a batch."""
        built = max(shape.batch for shape in self.shapes)
        return min(self.rules.most_requests or built, built)

    def _container(self, export: CellExport, folder: Path) -> list[str]:
        version = folder / VERSION
        version.mkdir()
        model = export.write(version)
        config = container_config(self.name, model, version, self.batching)
        warm_up = write_warm_up(folder, config.inputs, self.shapes)
        config = replace(config, largest=self.largest, instances=self.rules.instances,
                         warm_up=tuple(item for item in warm_up if item.shape.batch <= self.largest))  # fmt: skip
        (folder / "config.pbtxt").write_text(config.text(), encoding="utf-8")
        return export.warnings(model)

    def _python(self, export: CellExport, folder: Path) -> list[str]:
        cell = self.record.cell
        with export.prepared() as prepared:
            facts = self._facts(prepared)
            config = replace(python_config(self.name, facts, self.batching, self.rules.instances), largest=self.largest)
            version = write_python_model(folder, config, facts, copies=True)
            artifact = _copy_artifact(prepared, version)
            replace(facts, artifact=artifact).write(version)
            for name in prepared.sampled.tokenizer:
                shutil.copyfile(prepared.sampled.folder / name, version / name)
        warnings = [] if facts.tokenizes else ["the checkpoint has no tokenizer, so requests are token ids"]
        if prepared.built.artifact.sha256 != (measured := self.record.artifacts.built_sha256) and measured:
            warnings.append("the file was built again; it is not the measured file byte for byte")
        description = describe(cell.backend)
        if description.export and description.export.engine:
            warnings.append(f"the plan runs only on {self.record.environment.gpu} with {cell.release}")
        return warnings

    def _facts(self, prepared: PreparedExport) -> ServedFacts:
        sampled, built = prepared.sampled, prepared.built
        spec, pooling = built.spec, sampled.pooling
        config = read_config(sampled.folder)
        one_label = spec.output.kind == LOGITS and not spec.output.per_token
        labels = label_names(sampled.folder) if one_label and not _multi_label(config) else {}
        return ServedFacts(
            backend=self.record.cell.backend,
            spec=replace(spec, cache=Path("cache")),
            artifact=built.artifact,
            names=sampled.names,
            pad=read_samples(sampled.samples.path)[0].pad,
            pads_to_built=self.pads_to_built,
            tokenizes=bool(sampled.tokenizer),
            truncated_to=pooling.longest if pooling else 0,
            lower_case=bool(pooling and pooling.lower_case),
            uncounted=-1 if (uncounted := uncounted_id(config)) is None else uncounted,
            labels=tuple(labels[place] for place in sorted(labels)),
        )

    def _manifest(self, folder: Path) -> dict[str, object]:
        rules = self.rules
        return {
            "format": FORMAT,
            "cell": self.record.cell.id,
            "machine": self.record.environment.machine,
            "server": self.server,
            "batching": {"delay_us": rules.delay_us, "instances": rules.instances, "source": rules.source},
            "command": list(typed_command()),
            "maker": to_json(maker()),
            "files": {
                name: {"sha256": digest_of(folder / name), "bytes": (folder / name).stat().st_size}
                for name in sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
            },
        }


def _copy_artifact(prepared: PreparedExport, version: Path) -> Artifact:
    """Copy the files of the built model; return the artifact with its path below `version`."""
    artifact, sampled = prepared.built.artifact, prepared.sampled
    source, target = artifact.path.parent, version / FILES
    if source == sampled.folder:
        weights = [path.name for path in weight_files(source)]
        index = [INDEX] if (source / INDEX).is_file() else []
        names = ["config.json", *weights, *index, *sampled.sentence_files]
    else:
        names = [path.name for path in source.iterdir() if path.is_file() and path.name != "artifact.json"]
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
    return replace(artifact, path=Path(FILES) / artifact.path.name)


def _multi_label(config: Mapping[str, object]) -> bool:
    """Return whether a classifier gives each text any number of labels, so that none of them is the best one."""
    return config.get("problem_type") == "multi_label_classification"


def chosen_server(record: Record, requested: str) -> str:
    """Return CONTAINER or PYTHON, after a check that the record has a model for it.

    Args:
        requested: CONTAINER, PYTHON, or "auto": the container for a GPU model that Triton itself can run.

    Raises:
        Refused: the record has no model to serve, or Triton cannot run it itself.
    """
    check_served(record, (*EXPORTED_SUITES, *SERVING_SUITES))
    cell = record.cell
    description = describe(cell.backend)
    if HIDDEN_STATES not in description.outputs or description.source is SourceKind.none:
        raise Refused(f"backend={cell.backend} has no model to serve; deploy a record of another backend")
    check_model(record)
    runs_itself = description.export is not None and description.export.triton is not None
    if requested == CONTAINER and not runs_itself:
        raise Refused(f"Triton cannot run a model of backend={cell.backend} itself; use --server python")
    if requested != "auto":
        return requested
    return CONTAINER if runs_itself and cell.device == "cuda" else PYTHON
