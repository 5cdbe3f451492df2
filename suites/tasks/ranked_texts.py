"""Tasks that rank texts for a query: retrieval from a corpus by embeddings, and reranking of candidates by a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from suites.schema.config import TaskConfig
from suites.schema.refusals import Refused, shortened
from suites.tasks.datasets import column_keys, from_table, is_blank, number_of, rows_of, text_of

QRELS = ("query-id", "corpus-id", "score")
"""Columns of BEIR's qrels."""


@dataclass(frozen=True)
class Documents:
    """Texts of a corpus, or queries of a folder.

    Attributes:
        texts: one text for each document; documents with different ids may have the same text.
        places: place of a document in `texts` by its id and by its text.
    """

    texts: list[str] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)

    def add(self, text: str, *names: str) -> int:
        """Add a document, and return its place. `names` are its id and its text."""
        self.texts.append(text)
        for name in names:
            self.places.setdefault(name, len(self.texts) - 1)
        return len(self.texts) - 1


Relevance = Mapping[int, float]
"""Relevance of documents for a query by their place; documents that are not relevant are not listed."""


def retrieval(config: TaskConfig) -> tuple[list[str], dict[str, object]]:
    """Read queries, their relevant documents and the corpus.

    Returns:
        The different texts, and targets: `queries` and `corpus` (indices of texts), `relevance` (for each query, pairs
        of a place in the corpus and a relevance above 0) and `k`.

    Raises:
        Refused: a column is missing, a text is empty, a query has no positive, or a positive is not in the corpus.
    """
    documents, relevance = _from_folder(config) if Path(config.path or " ").is_dir() else _from_rows(config)
    rows: dict[str, int] = {}
    queries, corpus = (
        [rows.setdefault(text, len(rows)) for text in texts] for texts in ([q for q, _ in relevance], documents.texts)
    )
    gains = [[[place, gain] for place, gain in found.items()] for _, found in relevance]
    return list(rows), {"queries": queries, "corpus": corpus, "relevance": gains, "k": config.k}


def _from_rows(config: TaskConfig) -> tuple[Documents, list[tuple[str, Relevance]]]:
    keys = column_keys(config, "text", "pair")
    documents = _documents(Path(config.corpus), "task.corpus") if config.corpus else None
    union = Documents()
    relevance: dict[str, dict[int, float]] = {}
    for place, row in rows_of(config, list(keys), keys):
        query, value = text_of(place, config.text, row[config.text]), row[config.pair]
        positives = value if isinstance(value, list) else [] if is_blank(value) else [value]
        if not positives:
            raise _no_positive(place, query, f"add one to the column {config.pair}, or remove the row")
        for positive in positives:
            text = text_of(place, config.pair, positive)
            if documents is None:
                found = union.places.get(text)
                found = union.add(text, text) if found is None else found
            elif (found := documents.places.get(text)) is None:
                raise Refused(
                    f"{place}: the positive {shortened(text)!r} is neither the text nor the id of a document of "
                    f"task.corpus={config.corpus}; add the document, or correct the positive"
                )
            relevance.setdefault(query, {})[found] = 1.0
    return documents or union, [*relevance.items()]


def _from_folder(config: TaskConfig) -> tuple[Documents, list[tuple[str, Relevance]]]:
    """Read a folder in the format of BEIR."""
    if config.corpus:
        raise Refused(f"task.path={config.path} is a folder with its own corpus.jsonl; remove task.corpus")
    folder = Path(config.path)
    documents, queries = (_documents(folder / f"{name}.jsonl", "task.path") for name in ("corpus", "queries"))
    relevance: dict[str, dict[int, float]] = {}
    first: dict[str, str] = {}
    for place, row in from_table(folder / "qrels" / f"{config.split}.tsv", QRELS):
        query, document = (text_of(place, column, row[column]) for column in QRELS[:2])
        gain = number_of(place, QRELS[2], row[QRELS[2]])
        for name, known, file in ((query, queries, "queries"), (document, documents, "corpus")):
            if name not in known.places:
                raise Refused(f"{place}: {file}.jsonl has no _id {shortened(name)!r}; add it, or remove the line")
        if not queries.texts[queries.places[query]]:
            raise Refused(f"{place}: the query {shortened(query)!r} has no text in queries.jsonl; add it")
        first.setdefault(query, place)
        gains = relevance.setdefault(query, {})
        if gain > 0:
            gains[documents.places[document]] = gain
    if not relevance:
        raise Refused(f"{folder / 'qrels' / f'{config.split}.tsv'} has no lines; name another split with task.split")
    for query, gains in relevance.items():
        if not gains:
            raise _no_positive(first[query], query, "give a document with a score above 0, or remove its lines")
    return documents, [(queries.texts[queries.places[query]], gains) for query, gains in relevance.items()]


def _documents(path: Path, key: str) -> Documents:
    """Read texts with ids (`_id` or `id`) and titles, if there are any. Without ids, equal texts are one document.

    Args:
        key: the key of the configuration that names the file.
    """
    documents, ids, place = Documents(), set[str](), ""
    for place, row in from_table(path, ["text"], key=key):
        if "text" not in row:
            columns = shortened(", ".join(map(str, row)))
            raise Refused(f"{place}: there is no column text; its columns are {columns}; add it to the row")
        title, body = (
            "" if is_blank(row.get(column)) else text_of(place, column, row[column]) for column in ("title", "text")
        )
        text = f"{title} {body}".strip()
        name = row.get("_id", row.get("id"))
        if is_blank(name):
            if text not in documents.places:
                documents.add(text, text, body)
            continue
        own = str(name).strip()
        if own in ids:
            raise Refused(f"{place}: the id {shortened(own)!r} occurs twice; give each text its own id")
        ids.add(own)
        documents.add(text, own, text, body)
    if not place:
        raise Refused(f"{path} has no rows; give a file with at least one text")
    return documents


def reranking(config: TaskConfig) -> tuple[list[list[str]], dict[str, object]]:
    """Read queries with their candidates.

    Returns:
        Query and candidate of each pair, by query, and targets: `sizes` (number of candidates of each query) and
        `relevance` of each pair.

    Raises:
        Refused: a column is missing, a text is empty, a relevance is not a number, lists differ in length, a query has
            no relevant candidate, or every candidate is relevant.
    """
    keys = column_keys(config, "text", "pair", "score")
    candidates: dict[str, list[tuple[str, float]]] = {}
    first: dict[str, str] = {}
    for place, row in rows_of(config, list(keys), keys):
        query = text_of(place, config.text, row[config.text])
        texts, gains = row[config.pair], row[config.score]
        if isinstance(texts, list) != isinstance(gains, list):
            raise Refused(
                f"{place}: {config.pair} and {config.score} must both be lists, or a text and a number; correct the row"
            )
        texts, gains = (value if isinstance(value, list) else [value] for value in (texts, gains))
        if len(texts) != len(gains):
            raise Refused(
                f"{place}: {config.pair} has {len(texts)} entries and {config.score} has {len(gains)}; "
                "give one relevance for each candidate"
            )
        first.setdefault(query, place)
        candidates.setdefault(query, []).extend(
            (text_of(place, config.pair, text), number_of(place, config.score, gain))
            for text, gain in zip(texts, gains, strict=True)
        )
    _check_candidates(config, candidates, first)
    return (
        [[query, text] for query, listed in candidates.items() for text, _ in listed],
        {
            "sizes": [len(listed) for listed in candidates.values()],
            "relevance": [max(gain, 0.0) for listed in candidates.values() for _, gain in listed],
        },
    )


def _check_candidates(
    config: TaskConfig, candidates: dict[str, list[tuple[str, float]]], first: dict[str, str]
) -> None:
    def relevant(listed: Sequence[tuple[str, float]]) -> int:
        return sum(gain > 0 for _, gain in listed)

    for query, listed in candidates.items():
        if not relevant(listed):
            raise _no_positive(first[query], query, f"give a candidate with a {config.score} above 0, or remove it")
    if all(relevant(listed) == len(listed) for listed in candidates.values()):
        raise Refused(
            f"every candidate of {config.path or config.hub} is relevant, so each order is right; "
            f"add candidates with a {config.score} of 0"
        )


def _no_positive(place: str, query: str, remedy: str) -> Refused:
    return Refused(f"{place}: the query {shortened(query)!r} has no positive; {remedy}")
