"""`Template`: bytes with gaps for values of fixed lengths."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence


class Template:
    """Bytes that many messages share, with gaps for the values that differ.

    Args:
        sample: The bytes with sample values.
        values: The sample values. Every occurrence of one in `sample` becomes a gap.
    """

    def __init__(self, sample: bytes, values: Sequence[bytes]) -> None:
        parts: list[bytes] = []
        self._numbers: list[int] = []
        end = 0
        for position, number in sorted(_places(sample, values)):
            parts += [sample[end:position], values[number]]
            self._numbers.append(number)
            end = position + len(values[number])
        parts.append(sample[end:])
        self._parts = parts
        self._same = tuple(parts[::2])
        # The first part that holds each value, and the parts that repeat one
        places = [2 * place + 1 for place in map(self._numbers.index, range(len(values)))]
        self._places = places
        self._repeated = [
            (2 * place + 1, places[number])
            for place, number in enumerate(self._numbers)
            if 2 * place + 1 != places[number]
        ]
        self._struct = struct.Struct("".join(f"{len(part)}s" for part in parts))

    def fill(self, values: Sequence[bytes]) -> bytes:
        """Return the bytes with these values, which must be as long as the sample values."""
        self._parts[1::2] = [values[number] for number in self._numbers]
        return b"".join(self._parts)

    def extract(self, data: bytes) -> list[bytes] | None:
        """Return the values with which `fill` returns `data`; None if there are none."""
        if len(data) != self._struct.size:
            return None
        parts = self._struct.unpack(data)
        if parts[::2] != self._same:
            return None
        for repeated, place in self._repeated:
            if parts[repeated] != parts[place]:
                return None
        return [parts[place] for place in self._places]


def _places(sample: bytes, values: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    for number, value in enumerate(values):
        position = sample.find(value)
        while position >= 0:
            yield position, number
            position = sample.find(value, position + len(value))
