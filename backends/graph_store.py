"""CUDA graphs of a session: the graph that the next step replays, and the graphs that are kept for later."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Graph = TypeVar("Graph")


class GraphStore(Generic[Graph]):
    """Graphs by key. A key identifies the input sizes for which a graph is valid.

    Attributes:
        current: graph that the next step replays; None if the step runs without a graph.
        keep: whether `add` keeps a graph, and `select` returns to kept ones. Kept graphs stay when it becomes False.
    """

    def __init__(self) -> None:
        self.current: Graph | None = None
        self.keep = False
        self._key: Hashable = None
        self._kept: dict[Hashable, Graph] = {}

    def select(self, key: Hashable) -> None:
        """Set the key of the next step. The current graph stays if the key is unchanged; a kept graph becomes current.

        With an unchanged key, a kept graph becomes current only if there is no current graph.
        """
        if key != self._key:
            self._key, self.current = key, None
        if self.keep and self.current is None:
            self.current = self._kept.get(key)

    def add(self, graph: Graph) -> None:
        """Make `graph` the current one; if `keep` is true, also keep it under the selected key."""
        self.current = graph
        if self.keep:
            self._kept[self._key] = graph

    def drop(self) -> None:
        """Run the next steps without a graph. Kept graphs stay."""
        self.current = None

    def clear(self) -> None:
        """Free all graphs."""
        self.current, self._key, self._kept = None, None, {}
