"""Tasks of the library mteb, on the embeddings of a path.

mteb asks an encoder for the embeddings of texts and computes the score. A cell needs all texts before it runs, so the
task runs three times: with random embeddings, which gives its texts, and then with those of the path and of FP32.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Array
from backends.json_codec import from_json
from suites.schema.config import TaskConfig
from suites.schema.refusals import Refused, did_you_mean, first_line, is_file, shortened

if TYPE_CHECKING:
    from mteb import AbsTask

RANDOM_SIZE = 16
"""Size of the random embeddings."""


def mteb(config: TaskConfig) -> tuple[list[str], dict[str, object]]:
    """Return the texts of the mteb task `task.name`, and targets: `task`, `path`, `texts` and `metric`.

    Raises:
        Refused: mteb is not installed, there is no such task, it is not about texts, or its data cannot be fetched.
    """
    task = task_of(config.name, config.path)
    modalities = task.metadata.modalities
    if modalities != ["text"]:
        raise Refused(f"task.name={config.name} is about {', '.join(modalities)}; choose a task about text")
    rows: dict[str, Array] = {}
    generator = np.random.default_rng(0)

    def embed(texts: Sequence[str]) -> Array:
        for text in texts:
            if text not in rows:
                rows[text] = generator.normal(size=RANDOM_SIZE)
        return np.stack([rows[text] for text in texts])

    try:
        _run(task, embed)
    except Exception as error:  # The library raises errors of its HTTP client and of the data set.
        fault = shortened(first_line(error), 200)
        raise Refused(f"task.name={config.name} cannot be run ({fault}); fetch its data set, or name another") from None
    texts = list(rows)
    return texts, {"task": config.name, "path": config.path, "texts": texts, "metric": task.metadata.main_score}


def task_of(name: str, path: str) -> AbsTask:
    """Return a task of the library, or the class `name` of the Python file `path`.

    Raises:
        Refused: mteb is not installed, or there is no such task.
    """
    try:
        from mteb import get_task
        from mteb.get_tasks import get_tasks
    except ImportError:
        raise Refused("task=mteb needs the library mteb; pip install mteb (the extra [mteb])") from None
    if path:
        return _own_task(name, path)
    if not name:
        raise Refused("task.name= is empty; name a task of mteb, e.g. task=mteb task.name=STSBenchmark")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a newer version of the task exists
            return get_task(name)
    except KeyError:
        hint = did_you_mean(name, [task.metadata.name for task in get_tasks()])
        raise Refused(f"mteb has no task.name={shortened(name)}; {hint}see mteb.get_tasks() for all names") from None


def _own_task(name: str, path: str) -> AbsTask:
    if not is_file(path) or (spec := importlib.util.spec_from_file_location(Path(path).stem, path)) is None:
        raise Refused(f"task.path={path} is not a Python file; give one with the class task.name, or leave it out")
    module = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # The file is the user's.
        raise Refused(f"task.path={path} cannot be imported ({first_line(error)}); correct it") from None
    if not isinstance(made := getattr(module, name, None), type):
        raise Refused(f"task.path={path} has no class {name or '(nothing)'}; name the class with task.name")
    task: AbsTask = made()
    return task


def main_score(targets: Mapping[str, object], embeddings: Array) -> float:
    """Return the main score of the task, the mean over its splits and subsets, for embeddings [texts, size]."""
    rows = {text: row for row, text in enumerate(from_json(list[str], targets["texts"], "texts"))}
    task = task_of(str(targets["task"]), str(targets["path"]))
    return _run(task, lambda texts: embeddings[[rows[text] for text in texts]])


def _run(task: AbsTask, embed: Callable[[Sequence[str]], Array]) -> float:
    """Run a task with the embeddings [texts, size] that `embed` gives, and return its main score."""
    import mteb
    from datasets import disable_progress_bars
    from mteb.models import ModelMeta
    from mteb.models.abs_encoder import AbsEncoder

    class Encoder(AbsEncoder):  # type: ignore[misc]  # mteb is optional, so mypy does not read it
        mteb_model_meta = ModelMeta.create_empty()

        def encode(self, inputs: Iterable[Mapping[str, Sequence[str]]], **_: object) -> Array:
            return np.asarray(embed([text for batch in inputs for text in batch["text"]]), np.float32)

    logging.getLogger("mteb").setLevel(logging.ERROR)
    disable_progress_bars()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = mteb.evaluate(Encoder(), task, cache=None, co2_tracker=False, show_progress_bar=False)
    return float(result.task_results[0].get_score())
