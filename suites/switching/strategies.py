"""Short labels of strategies for tables, and the list that explains them."""

from __future__ import annotations

from collections.abc import Sequence

from suites.records.record import Record
from suites.switching.strategy_names import StrategyNames
from suites.tables.markdown import numbered_list


class Labels:
    """Labels of the strategies of one section, e.g. "trt fp16 graphs [3]". The number is that in `listing`."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.names = StrategyNames(records)
        ordered = sorted(records, key=lambda record: (self.names.of(record, False), record.cell.id))
        self._numbers = {record.cell.id: number for number, record in enumerate(ordered, 1)}
        self._texts = [self.names.of(record, False) for record in ordered]

    def of(self, record: Record, cuda_graph: bool) -> str:
        graphs = " graphs" if cuda_graph else ""
        return f"{record.cell.backend} {record.cell.precision}{graphs} [{self._numbers[record.cell.id]}]"

    def listing(self) -> list[str]:
        """Return the lines of a numbered list with the full name of each strategy."""
        return ["#### Strategies", *self.names.caption(), "", numbered_list(self._texts)]
