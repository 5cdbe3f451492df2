"""Output of a request: the kind that the user, the task or the checkpoint chooses, and its pooling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from backends.config_key import to_json_types
from backends.description import SourceKind
from backends.model_output import AUTO, EMBEDDING, HIDDEN, POOLINGS, Output, resolve_output
from backends.options import Switch
from backends.registry import describe
from suites.schema.config import RunConfig
from suites.schema.enums import Weights
from suites.schema.refusals import Refused, no_such_choice


def output_of(config: RunConfig, required: str, checkpoint_config: Mapping[str, object]) -> Output:
    """Return the output of a request. Its kind stays "auto" if the checkpoint is not on this machine yet.

    Args:
        required: the only kind that the suite or its task can use; empty for any.
        checkpoint_config: contents of the config.json of model.path; {} without one.

    Raises:
        Refused: keys contradict one another.
    """
    requested = _requested(config, required)
    if describe(config.backend).source is SourceKind.none:
        if requested.kind not in (AUTO, HIDDEN):
            raise Refused(f"backend={config.backend} runs no model, so it has no output={requested.kind}")
        return Output()
    if config.weights is Weights.random:
        return resolve_output(
            requested, {name: to_json_types(value) for name, value in config.model.architecture.items()}
        )
    return resolve_output(requested, checkpoint_config, Path(config.model.path)) if checkpoint_config else requested


def _requested(config: RunConfig, required: str) -> Output:
    kind, pooling = config.output.name, tuple(config.pooling)
    if required and kind not in (AUTO, required):
        task = f" with task={config.task.name}" if required != HIDDEN else ""
        raise Refused(f"output={kind}: suite={config.suite.name}{task} needs output={required}; leave output out")
    for mode in pooling:
        if mode not in POOLINGS:
            raise Refused(no_such_choice("pooling", mode, POOLINGS))
    normalize = {Switch.auto: None, Switch.on: True, Switch.off: False}[config.normalize]
    chosen = required or kind
    if pooling or normalize is not None:
        if chosen == AUTO:
            chosen = EMBEDDING
        if chosen != EMBEDDING:
            name = "pooling" if pooling else "normalize"
            raise Refused(f"{name} is for output=embedding, not for output={chosen}; leave it out")
    return Output(chosen, pooling, normalize)
