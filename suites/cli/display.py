"""Progress of running cells: one live line in a terminal, and elsewhere a plain line when a process starts."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from suites.measuring.clock import now_ns
from suites.text import one_line

STARTED = "started: "
"""First word of a line that says that a process started. Without a terminal, nothing else shows progress."""


class Display:
    """Display of the current cell and its stage. It redraws only after a change, to not disturb a CPU measurement."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._title = self._position = self._process = self._remaining = ""
        self._started = 0

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def begin(
        self, title: str, position: str = "", stage: str = "probe", process: str = "", remaining: str = ""
    ) -> None:
        """Show that a cell, or one more process of a cell, starts.

        Args:
            title: Model, backend and precision of the cell.
            position: Place of the cell in its sweep, such as "cell 2 of 4".
            stage: First stage, or number of the process.
            process: Number of the process that measures after other stages.
            remaining: Remaining time of the sweep at the start of the cell, such as "about 3 min left".
        """
        self._title, self._started = one_line(title), now_ns()
        self._position, self._process, self._remaining = position, process, remaining
        self._say_started(stage, remaining)
        self.stage(stage, "starting")

    def _say_started(self, stage: str, remaining: str = "") -> None:
        """Print a plain line without a terminal. A terminal shows the stage in its live line."""
        if not self._console.is_terminal:
            texts = (self._position, self._title, stage, remaining)
            self.say(f"{STARTED}{'  '.join(text for text in texts if text)}")

    def stage(self, stage: str, text: str, keep: bool = False) -> None:
        """Show the activity of a stage. With `keep`, print it on a permanent line."""
        if keep:
            self.say(f"{self._title}  {stage}: {text}")
        if stage == "measure" and self._process:
            self._say_started(self._process)
            self._process = ""
        if self._console.is_terminal:
            elapsed = (now_ns() - self._started) / 1e9
            position = f"{self._position}  " if self._position else ""
            remaining = f"  {self._remaining}" if self._remaining else ""
            line = Text.assemble(
                position,
                (f"{self._title}  ", "bold"),
                (stage, "cyan"),
                f"  {one_line(text)}  {elapsed:.0f} s{remaining}",
            )
            self._live.update(line, refresh=True)

    def end(self, outcome: str, text: str) -> None:
        """Print the outcome of the cell on a permanent line."""
        style = {"ok": "green", "unsupported": "yellow"}.get(outcome, "red")
        self._console.print(Text.assemble((outcome, style), f"  {self._title}  {one_line(text)}"), soft_wrap=True)

    def say(self, text: str) -> None:
        self._console.print(Text(one_line(text)), soft_wrap=True)
