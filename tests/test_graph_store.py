"""The graphs of a session: which one is replayed after a change of shape, and which ones are kept."""

from __future__ import annotations

import gc
import weakref

from backends.base import Session
from backends.graph_store import GraphStore


class Graph:
    pass


def test_a_graph_is_replayed_until_the_key_changes() -> None:
    graphs: GraphStore[str] = GraphStore()
    graphs.select("2x16")
    assert graphs.current is None
    graphs.add("graph of 2x16")
    graphs.select("2x16")
    assert graphs.current == "graph of 2x16"
    for key in ("3x16", "2x16"):
        graphs.select(key)
        assert graphs.current is None


def test_kept_graphs_are_replayed_when_their_key_returns() -> None:
    graphs: GraphStore[str] = GraphStore()
    graphs.keep = True
    for key in ("2x16", "3x16"):
        graphs.select(key)
        graphs.add(f"graph of {key}")
    for key in ("2x16", "3x16", "2x16"):
        graphs.select(key)
        assert graphs.current == f"graph of {key}"
    graphs.select("4x16")
    assert graphs.current is None


def test_a_graph_that_was_captured_before_keep_is_not_kept() -> None:
    graphs: GraphStore[str] = GraphStore()
    graphs.select("2x16")
    graphs.add("not kept")
    graphs.keep = True
    graphs.select("2x16")
    assert graphs.current == "not kept"
    graphs.select("3x16")
    graphs.select("2x16")
    assert graphs.current is None


def test_kept_graphs_survive_steps_without_a_graph() -> None:
    graphs: GraphStore[str] = GraphStore()
    graphs.keep = True
    graphs.select("2x16")
    graphs.add("kept")
    graphs.keep = False
    graphs.drop()
    graphs.select("2x16")
    assert graphs.current is None
    graphs.keep = True
    # Also if the key has not changed since the step without a graph.
    graphs.select("2x16")
    assert graphs.current == "kept"


def test_graphs_are_freed() -> None:
    graphs: GraphStore[Graph] = GraphStore()
    graphs.select("2x16")
    graphs.add(Graph())
    dropped = weakref.ref(graphs.current)
    graphs.keep = True
    graphs.drop()
    gc.collect()
    assert dropped() is None
    graphs.add(Graph())
    kept = weakref.ref(graphs.current)
    graphs.drop()
    gc.collect()
    assert kept() is not None
    graphs.clear()
    gc.collect()
    assert kept() is None
    graphs.select("2x16")
    assert graphs.current is None


def test_a_session_that_keeps_no_graphs_steps_without_one() -> None:
    from backends.null_.null import Costs, NullSession

    session: Session = NullSession("ok", Costs(gpu_ms=1e-3))
    assert not session.keeps_graphs
    session.graphs.add(True)
    assert session.replays
    session.keeps_graphs = True
    assert session.replays
    session.keeps_graphs = False
    assert not session.replays
    assert not session.keeps_graphs
