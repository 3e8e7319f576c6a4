"""`Pattern`: bytes that come again and again, with other values of the same lengths in them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence


class Pattern:
    """What is the same in all of them, and where the values are.

    Args:
        sample: The bytes with sample values.
        values: The sample values. Each may occur more than once, and by no accident.
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
        # Where each value stands among the parts, and where it stands again
        places = [2 * place + 1 for place in map(self._numbers.index, range(len(values)))]
        self._places = places
        self._again = [
            (2 * place + 1, places[number])
            for place, number in enumerate(self._numbers)
            if 2 * place + 1 != places[number]
        ]
        self._struct = struct.Struct("".join(f"{len(part)}s" for part in parts))

    def filled(self, values: Sequence[bytes]) -> bytes:
        """Return the bytes with these values, which must have the lengths of the sample's."""
        self._parts[1::2] = [values[number] for number in self._numbers]
        return b"".join(self._parts)

    def values_in(self, data: bytes) -> list[bytes] | None:
        """Return the values of bytes that `filled` would return with them; None of any others."""
        if len(data) != self._struct.size:
            return None
        parts = self._struct.unpack(data)
        if parts[::2] != self._same:
            return None
        for again, place in self._again:
            if parts[again] != parts[place]:
                return None
        return [parts[place] for place in self._places]


def _places(sample: bytes, values: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    for number, value in enumerate(values):
        position = sample.find(value)
        while position >= 0:
            yield position, number
            position = sample.find(value, position + len(value))
