"""Output of a request: the kind that the user, the task or the checkpoint chooses, and its pooling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from backends.base import Unavailable, Unsupported
from backends.config_key import to_json_types
from backends.description import SourceKind
from backends.model.pooling import pooling_of
from backends.model_output import AUTO, EMBEDDING, HIDDEN, LOGITS, POOLINGS, SCORE, SPANS, Output, resolve_output
from backends.options import Switch
from backends.registry import describe
from suites.schema.config import RunConfig
from suites.schema.enums import Weights
from suites.schema.refusals import Refused, no_such_choice

HEAD_SETTINGS = {
    LOGITS: "+model.architecture.architectures=[BertForSequenceClassification]",
    SPANS: "+model.architecture.architectures=[BertForQuestionAnswering]",
    SCORE: "+model.architecture.architectures=[BertForSequenceClassification] +model.architecture.num_labels=1",
}
"""Arguments that give random weights of BERT the head for an output."""


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
            raise Refused(
                f"backend={config.backend} runs no model, so it has no output={requested.kind}; leave output out"
            )
        return Output()
    if config.weights is Weights.random:
        return _of_random_weights(requested, config)
    if not checkpoint_config:
        return requested
    folder = Path(config.model.path)
    output = resolve_output(requested, checkpoint_config, folder)
    if output.kind == EMBEDDING and not output.pooling:
        _check_pooling(folder)
    return output


def _of_random_weights(requested: Output, config: RunConfig) -> Output:
    architecture = {name: to_json_types(value) for name, value in config.model.architecture.items()}
    own, kind = resolve_output(Output(AUTO), architecture).kind, requested.kind
    if kind in HEAD_SETTINGS and own != kind and (kind, own) != (LOGITS, SCORE):
        raise Refused(
            f"output={kind} with weights=random needs a head for it: name its class, for example {HEAD_SETTINGS[kind]}"
        )
    return resolve_output(requested, architecture)


def _check_pooling(folder: Path) -> None:
    """Refuse a folder whose files about the pooling are damaged or contradict one another, before work starts."""
    try:
        pooling_of(folder)
    except Unsupported:
        return  # the export stage gives the reason in the record
    except Unavailable as reason:
        raise Refused(f"model.path={folder}: {reason}") from None


def _requested(config: RunConfig, required: str) -> Output:
    kind, pooling = config.output.name, tuple(config.pooling)
    if required and kind not in (AUTO, required):
        task = f" with task={config.task.name}" if required != HIDDEN else ""
        raise Refused(f"output={kind}: suite={config.suite.name}{task} needs output={required}; leave output out")
    for mode in pooling:
        if mode not in POOLINGS:
            raise Refused(no_such_choice("pooling", mode, POOLINGS))
    if len(set(pooling)) < len(pooling):
        raise Refused(f"pooling=[{','.join(pooling)}] has a pooling twice; name each once")
    normalize = {Switch.auto: None, Switch.on: True, Switch.off: False}[config.normalize]
    chosen = required or kind
    if pooling or normalize is not None:
        if chosen == AUTO:
            chosen = EMBEDDING
        if chosen != EMBEDDING:
            name = "pooling" if pooling else "normalize"
            raise Refused(f"{name} is for output=embedding, not for output={chosen}; leave it out")
    return Output(chosen, pooling, normalize)
