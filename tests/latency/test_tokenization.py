"""Times of the tokenizer: texts of the lengths of the inputs, threads, the cache, and the record of a cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli
from word_models import WORDS, word_model

from backends.base import Shape
from backends.cache import ArtifactCache
from backends.inputs.batches import InputSource
from backends.inputs.lengths import Lengths
from backends.inputs.row_texts import batch_texts
from backends.model.identity import identity_of
from backends.model.tokenizer import fast_tokenizer, tokenizer_threads
from suites.latency import tokenization
from suites.latency.figures import latency_rows
from suites.latency.tables import latency_tables
from suites.latency.tokenization import time_tokenization, tokenizing
from suites.measuring.clock import Effort, Samples
from suites.records.record import Record
from suites.records.results_folder import read_records

EFFORT = Effort(warm_up_s=0.01, seconds=0.01, min_samples=2, max_samples=3, tolerance=0.5)
TEXTS = ["the cat sat on a mat", "a dog", "", "it ran to the sea and who saw it"]
SHAPE = Shape(3, 12)


@pytest.fixture
def origin(tmp_path: Path) -> InputSource:
    folder = word_model(tmp_path / "model")
    return InputSource(folder, identity_of(folder), Lengths(), TEXTS, 0, "cpu", ArtifactCache(tmp_path / "cache"))


def test_texts_of_a_batch_have_the_lengths_of_its_inputs(origin: InputSource) -> None:
    texts = batch_texts(origin, [SHAPE, Shape(1, 5)])
    # Two of the tokens are [CLS] and [SEP], and a new row begins at the next text.
    assert [len(text.split()) for text in texts[SHAPE]] == [10, 10, 10]
    assert texts[SHAPE][0] == "the cat sat on a mat a dog it ran"
    assert texts[SHAPE][1].startswith("a dog it ran")
    assert texts[Shape(1, 5)] == ["the cat sat"]


def test_tokenizing_makes_the_arrays_of_the_inputs(origin: InputSource) -> None:
    tokenizer = fast_tokenizer(origin.folder)
    assert tokenizer is not None
    arrays = tokenizing(tokenizer, batch_texts(origin, [SHAPE])[SHAPE], SHAPE)()
    tokens = origin.tokens()
    expected = tokens.feeds([12] * 3, 12, ("input_ids", "attention_mask"))
    for name, values in expected.items():
        np.testing.assert_array_equal(np.asarray(arrays[name]), values)


def test_cells_share_the_times_of_the_same_texts(origin: InputSource) -> None:
    first = time_tokenization(origin, [SHAPE], EFFORT)
    assert first is not None
    samples = first.notes["samples_ns"]
    assert isinstance(samples, dict)
    assert 2 <= len(samples["3x12"]) <= 3
    assert time_tokenization(origin, [SHAPE], EFFORT) == first
    other = time_tokenization(origin, [SHAPE], replace(EFFORT, max_samples=4))
    assert other is not None
    assert other.path != first.path


def test_a_slow_tokenizer_is_not_timed(origin: InputSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suites.latency.tokenization.fast_tokenizer", lambda folder: None)
    assert time_tokenization(origin, [SHAPE], EFFORT) is None


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({"RAYON_NUM_THREADS": "3"}, (3, "RAYON_NUM_THREADS")),
        ({"RAYON_NUM_THREADS": "3", "TOKENIZERS_PARALLELISM": "False"}, (1, "TOKENIZERS_PARALLELISM")),
        ({"TOKENIZERS_PARALLELISM": "true"}, (5, "CPUs")),
        ({"RAYON_NUM_THREADS": "0"}, (5, "CPUs")),
    ],
)
def test_threads_of_the_tokenizer(
    environment: dict[str, str], threads: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(5)))
    assert tokenizer_threads() == threads


def test_the_table_adds_the_tokenizer_to_the_faster_request(make_record: Callable[..., Record]) -> None:
    notes = {"threads": 2, "threads_from": "CPUs", "samples_ns": {"2x16": [300_000, 400_000, 500_000]}}
    plain = make_record()
    inputs = {"notes": {"tokens": "text", "shapes": {"2x16": {"tokens": 32}}}}
    record = make_record(artifacts={"inputs": inputs, "tokenization": {"sha256": "a", "notes": notes}})
    (row,) = latency_rows([record], {})
    assert (row.tokenize, row.text_request) == (400_000, 900_000)  # the request of the graph takes 0.5 ms
    text = latency_tables([record])
    assert "| tokenize p50 ms | text request p50 ms |" in text
    assert "Threads of the tokenizer: 2 (CPUs)." in text
    assert latency_rows([plain], {})[0].text_request is None
    assert "| tokenize p50 ms" not in latency_tables([plain])


def test_a_cell_with_texts_has_the_times_of_its_tokenizer(cli: Cli, tmp_path: Path) -> None:
    folder = word_model(tmp_path / "checkpoint")
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join([" ".join(WORDS[:8]), " ".join(WORDS[8:])]))
    done = cli(
        "backend=torch_eager", f"model.path={folder}", f"task.path={texts}", "batch=[2]", "sequence=[8]", "threads=1",
        "device=cpu", "suite.seconds=0.02", "suite.warm_up_s=0.05", "suite.min_samples=3",
        TOKENIZERS_PARALLELISM="true",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "latency")
    notes = record.artifacts.tokenization_notes
    assert (notes.threads, notes.threads_from) == (1, "RAYON_NUM_THREADS")
    assert len(notes.samples_ns["2x8"]) >= 3
    assert record.artifacts.tokenization is not None
    assert "tokenizers" in (record.artifacts.tokenization.versions or {})
    assert "tokenization" not in record.artifacts.digests()


def test_times_begin_when_the_lock_of_a_builder_is_free(
    origin: InputSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    @contextmanager
    def locked(path: Path) -> Iterator[None]:
        events.append(path.name)
        yield
        events.append("free")

    def timed(call: object, effort: Effort) -> Samples:
        events.append("timed")
        return Samples((1, 2), ())

    monkeypatch.setattr(tokenization, "locked", locked)
    monkeypatch.setattr(tokenization, "time_calls", timed)
    for _ in range(2):
        time_tokenization(origin, [SHAPE], EFFORT, tmp_path / "starting.lock")
    assert events == ["starting.lock", "free", "timed"]  # the second times are from the cache
