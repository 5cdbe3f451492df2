"""Examples of serving records of the H200: the loads of BERT-base, and the advice of suites.capacity."""

from __future__ import annotations

from docs.generate.results import REFERENCE
from suites.records.record import Record
from suites.records.results_folder import MachineFolder
from suites.serving.capacity_plan import Demand, plan
from suites.serving.capacity_text import Advice, Prices
from suites.serving.load_summary import Configuration, Summary, summaries
from suites.serving.summary_tables import answers
from suites.tables.markdown import digits, markdown, wrapped

H200 = "nvidia-h200-driver-580.159.04"
MODEL = "bert_base"
BOUND = (5.0, 99.0)
DEMAND = Demand(50_000, 5)


def bert_records() -> list[Record]:
    """Return the serving records of BERT-base on the H200."""
    return [record for record in MachineFolder(REFERENCE, H200).records("serving") if record.cell.model == MODEL]


def bert_summary() -> Summary:
    """Return the summary of these records, which have one workload."""
    (summary,) = summaries(bert_records())
    return summary


def load_table() -> str:
    """Return the best batches of each backend and precision within 5 ms, beside single requests, and the answers."""
    summary = bert_summary()
    best: dict[str, Configuration] = {}
    for row in summary.configurations:
        if not row.single:
            best.setdefault(row.name, row)
    rows = [_row(row, summary) for row in best.values()]
    table = markdown(("backend", "single requests", "batches", "strategy of the batches", "p99 ms", "mean batch"), rows)
    return "\n".join([table, "", *(wrapped(f"- {text}", "  ") for text in answers(summary))])


def _row(row: Configuration, summary: Summary) -> list[str]:
    single, load, point = summary.single_requests(row, BOUND), row.load(BOUND), row.point(BOUND)
    return [
        row.name,
        digits(single) if single else "",
        digits(load) if load else "none",
        row.strategy,
        digits(point.latency.p99 / 1e6) if point else "",
        digits(point.mean_batch) if point else "",
    ]


def capacity_example() -> str:
    """Return the first configuration of the advice for `DEMAND`, as a code block."""
    text = Advice(DEMAND, plan(bert_records(), DEMAND), Prices(None), "results/reference").text()
    first, _, _ = text.partition("\n\n2. ")
    return f"```text\n{first}\n```"
