"""`Registry`: stores the listeners or tasks of a bus, and notifies workers of new ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

Item = TypeVar("Item")


class Registry(Collection[Item]):
    """Items in the order in which they were added.

    Other threads may add items while a thread iterates.
    """

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._callbacks: list[Callable[[Item], None]] = []

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def __iter__(self) -> Iterator[Item]:
        return iter(tuple(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._items!r}>"

    def on_added(self, callback: Callable[[Item], None]) -> Callable[[], None]:
        """Call `callback` with each item that is added from now on, on the thread that adds it.

        Returns:
            A function that removes the callback.
        """
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def _add(self, item: Item) -> None:
        self._items.append(item)
        for callback in self._callbacks:
            callback(item)
