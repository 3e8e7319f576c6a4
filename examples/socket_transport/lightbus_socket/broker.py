"""A small broker on a TCP socket. It keeps events in memory, and speaks JSON, one object a line.

::

    python -m lightbus_socket.broker 7400

A client sends requests such as ``{"id": 1, "do": "declare", ...}``, and receives a reply with the same
``id`` for each. The methods of `Client` are the requests. The broker requeues what a client that is gone
has not settled.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import json
import sys
import time
from typing import Any

import attrs

from lightbus_socket.connection import MAX_LINE


@attrs.define
class Entry:
    """One event in one queue."""

    position: int
    message: Any
    attempt: int = 1
    redeliveries: int = 0
    first_failed_at: float | None = None


class Queue:
    """The events of one listener, in order, and the requests that wait for one."""

    def __init__(self) -> None:
        self.events: set[str] = set()
        self._ready: list[Entry] = []
        self._takers: list[asyncio.Future[Entry | None]] = []

    def put(self, entry: Entry) -> None:
        """Add an event at its position, and deliver the first one if a request waits."""
        bisect.insort(self._ready, entry, key=lambda ready: ready.position)
        while self._ready and self._takers:
            taker = self._takers.pop(0)
            if not taker.done():
                taker.set_result(self._ready.pop(0))

    def take(self) -> asyncio.Future[Entry | None]:
        """Return a future of the first event."""
        taker: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
        if self._ready:
            taker.set_result(self._ready.pop(0))
        else:
            self._takers.append(taker)
        return taker


class Broker:
    """The queues, by API and name, and the dead letters."""

    def __init__(self) -> None:
        self.queues: dict[tuple[str, str], Queue] = {}
        self.dead_letters: list[tuple[Any, Any]] = []
        self.positions = itertools.count()
        self.numbers = itertools.count(1)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it is gone."""
        client = Client(self)
        requests: set[asyncio.Task[None]] = set()
        try:
            while line := await reader.readline():
                # Each request runs up to its first wait before the next one starts.
                request = asyncio.create_task(client.answer(json.loads(line), writer))
                requests.add(request)
                request.add_done_callback(requests.discard)
                await asyncio.sleep(0)
        except (ConnectionError, ValueError):
            pass  # the client is gone, or sent what is no request
        finally:
            client.close("")
            for request in requests:
                request.cancel()
            writer.close()


class Client:
    """One connection, with the deliveries that it has not settled."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._unsettled: dict[int, tuple[str, Queue, Entry]] = {}
        self._waiting: dict[str, list[asyncio.Future[Entry | None]]] = {}

    async def answer(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """Do what a request asks for, and send the reply."""
        number, method = request.pop("id"), getattr(self, request.pop("do"))
        result = method(**request)
        if asyncio.iscoroutine(result):
            result = await result
        writer.write(json.dumps({"id": number, "result": result}).encode() + b"\n")

    def declare(self, api: str, queue: str, events: list[str]) -> None:
        """Store events of these names in a queue from now on."""
        self._broker.queues.setdefault((api, queue), Queue()).events.update(events)

    def send(self, api: str, event: str, message: Any) -> bool:
        """Add an event to each queue that receives it; return whether there is one."""
        queues = [
            queue
            for (name, _), queue in self._broker.queues.items()
            if name == api and event in queue.events
        ]
        for queue in queues:
            queue.put(Entry(next(self._broker.positions), message))
        return bool(queues)

    def send_to(self, api: str, queue: str, message: Any, attempt: int) -> bool:
        """Add an event to one queue; return whether the queue exists."""
        found = self._broker.queues.get((api, queue))
        if found is not None:
            found.put(Entry(next(self._broker.positions), message, attempt=attempt))
        return found is not None

    async def take(self, api: str, queue: str, stream: str) -> dict[str, Any] | None:
        """Wait for the next event of a queue; return None when the stream is stopped."""
        source = self._broker.queues[api, queue]
        taker = source.take()
        self._waiting.setdefault(stream, []).append(taker)
        try:
            entry = await taker
        finally:
            self._waiting[stream].remove(taker)
        if entry is None:
            return None
        number = next(self._broker.numbers)
        self._unsettled[number] = (stream, source, entry)
        return {"delivery": number, **attrs.asdict(entry)}

    def stop(self, stream: str) -> None:
        """End the requests of a stream that wait for an event."""
        for taker in self._waiting.get(stream, ()):
            if not taker.done():
                taker.set_result(None)

    def close(self, stream: str) -> None:
        """Requeue the unsettled deliveries of a stream, or of all streams, as attempts."""
        for each in [stream] if stream else list(self._waiting):
            self.stop(each)
        for number, (owner, _, _) in list(self._unsettled.items()):
            if stream in ("", owner):
                self.requeue(number, is_attempt=True)

    def ack(self, delivery: int) -> bool:
        """Forget an event; return whether this client still had it."""
        return self._unsettled.pop(delivery, None) is not None

    def requeue(self, delivery: int, is_attempt: bool) -> bool:  # noqa: FBT001 - from JSON
        """Return an event to its place; return whether this client still had it."""
        if (found := self._unsettled.pop(delivery, None)) is None:
            return False
        _, queue, entry = found
        entry.attempt += is_attempt
        entry.redeliveries += is_attempt
        queue.put(entry)
        return True

    def dead_letter(self, delivery: int, failure: Any) -> bool:
        """Keep an event and its failure; return whether this client still had it."""
        if (found := self._unsettled.pop(delivery, None)) is None:
            return False
        self._broker.dead_letters.append((found[2].message, failure))
        return True

    def delay(self, delivery: int, seconds: float, is_attempt: bool) -> bool:  # noqa: FBT001
        """Add an event to its queue after a delay; return whether this client still had it."""
        if (found := self._unsettled.pop(delivery, None)) is None:
            return False
        _, queue, entry = found
        if is_attempt:
            entry.attempt += 1
            entry.first_failed_at = entry.first_failed_at or time.time()
        entry.redeliveries, entry.position = 0, next(self._broker.positions)
        asyncio.get_running_loop().call_later(seconds, queue.put, entry)
        return True


async def main(port: int) -> None:
    """Serve on 127.0.0.1; port 0 selects a free one. Print the port."""
    server = await asyncio.start_server(Broker().serve, "127.0.0.1", port, limit=MAX_LINE)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
