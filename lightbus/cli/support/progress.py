"""`QueueProgress`: draws the progress of moving the events of several queues."""

from __future__ import annotations

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lightbus.cli.support.console import err


class QueueProgress(Progress):
    """A context manager that draws one progress bar a queue, on standard error."""

    def __init__(self) -> None:
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            TimeElapsedColumn(),
            console=err,
        )
        self._bars: dict[str, TaskID] = {}

    def draw(self, name: str, *, moved: int, left: int, is_done: bool, status: str) -> None:
        """Draw the bar of a queue.

        Args:
            name: The name of the queue.
            moved: The number of events that were moved.
            left: The number of events that are known to be left.
            is_done: Whether the queue is finished.
            status: What follows the number of moved events, such as ``"3 left"``.
        """
        if name not in self._bars:
            self._bars[name] = self.add_task(name, status="")
        # Without a total, the bar is animated instead of filled.
        total = moved + left if left else None
        self.update(
            self._bars[name],
            completed=1 if is_done else moved,
            total=1 if is_done else total,
            status=f"{moved:,} moved, {status}",
        )
