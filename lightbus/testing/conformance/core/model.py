"""A transport and a simple model of one, driven through the same random steps and compared."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import attrs
import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lightbus.config import TransportSettings
from lightbus.testing.conformance.broker import (
    DELAY,
    BrokerUnderTest,
    text_of,
    texts_of,
)
from lightbus.transport.contract import Delivery, DeliveryStream, EventTransport
from lightbus.transport.features import InexactAttempts, lists

T = TypeVar("T")

# More events than one run sends
_MAX_IN_FLIGHT = 100

LISTENERS = ("one", "two")


@attrs.define
class ModelQueue:
    """The events of one listener, by text, as the model expects them.

    Attributes:
        stream: The stream of the listener; None while it is not subscribed.
        is_declared: Whether events are stored for it.
        waiting: The lowest attempt that the next delivery of each event may be. A broker may count
            an event that was requeued.
        certain: The lowest attempt that a transport with inexact attempts may report: that of the
            last send, or of the last retry with a delay.
        in_flight: The deliveries that were not settled.
    """

    stream: DeliveryStream | None = None
    is_declared: bool = False
    waiting: dict[str, int] = attrs.field(factory=dict)
    certain: dict[str, int] = attrs.field(factory=dict)
    in_flight: dict[str, Delivery] = attrs.field(factory=dict)

    def send(self, text: str, attempt: int = 1) -> None:
        """Expect an event that was sent to the queue as `attempt`."""
        self.waiting[text] = self.certain[text] = attempt

    def return_all(self) -> None:
        """Expect the events in flight again, as their next attempts."""
        for text, delivery in self.in_flight.items():
            self.waiting[text] = delivery.attempt + 1
        self.in_flight.clear()


class TransportMachine(RuleBasedStateMachine):
    """Sends, receives, settles, closes and reopens in a random order."""

    def __init__(self, broker: BrokerUnderTest) -> None:
        super().__init__()
        self.broker = broker
        self.are_attempts_exact = not lists(broker.transport_class, InexactAttempts)
        self.runner = asyncio.Runner()
        self.transport = self.run(broker.open())
        self.queues = {name: ModelQueue() for name in LISTENERS}
        self.dead: list[str] = []
        self.sent = 0

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(self.broker.patience * 2):
                return await coroutine

        return self.runner.run(bounded())

    @rule()
    def send(self) -> None:
        text = str(self.sent)
        self.sent += 1
        self.run(self.broker.send(self.transport, text))
        for queue in self.queues.values():
            if queue.is_declared:
                queue.send(text)

    @rule(name=st.sampled_from(LISTENERS))
    def subscribe(self, name: str) -> None:
        queue = self.queues[name]
        if queue.stream is None:
            subscription = self.broker.subscription(name, concurrency=_MAX_IN_FLIGHT)
            queue.stream = self.run(self.transport.subscribe(subscription))
            queue.is_declared = True

    @rule(name=st.sampled_from(LISTENERS))
    def take(self, name: str) -> None:
        queue = self.queues[name]
        if queue.stream is not None and queue.waiting:
            self._take(queue)

    def _take(self, queue: ModelQueue) -> Delivery:
        assert queue.stream is not None
        delivery = self.run(self.broker.receive(queue.stream))
        text = text_of(delivery)
        assert text in queue.waiting, (
            f"{text} was delivered, and {list(queue.waiting)} were expected"
        )
        least = queue.waiting.pop(text)
        # Without exact attempts, a broker may also forget an attempt whose worker was lost.
        assert delivery.attempt >= (least if self.are_attempts_exact else queue.certain[text])
        queue.in_flight[text] = delivery
        return delivery

    @precondition(lambda self: any(queue.in_flight for queue in self.queues.values()))
    @rule(data=st.data(), how=st.sampled_from(("ack", "requeue", "retry", "defer", "dead-letter")))
    def settle(self, data: st.DataObject, how: str) -> None:
        choices = [
            (name, text) for name, queue in self.queues.items() for text in sorted(queue.in_flight)
        ]
        name, text = data.draw(st.sampled_from(choices))
        queue = self.queues[name]
        delivery = queue.in_flight.pop(text)
        match how:
            case "ack":
                self.run(delivery.ack())
            case "requeue":
                self.run(delivery.requeue())
                queue.waiting[text] = delivery.attempt
            case "retry":
                after = data.draw(st.sampled_from((0, DELAY)))
                self.run(delivery.retry(after=after))
                queue.waiting[text] = delivery.attempt + 1
                if after:
                    queue.send(text, delivery.attempt + 1)
            case "defer":
                self.run(delivery.retry(after=DELAY, counts=False))
                queue.send(text, delivery.attempt)
            case "dead-letter":
                self.run(delivery.dead_letter(self.broker.failure()))
                self.dead.append(text)

    @rule(name=st.sampled_from(LISTENERS))
    def leave(self, name: str) -> None:
        queue = self.queues[name]
        if queue.stream is not None:
            self.run(queue.stream.aclose())
            queue.stream = None
            queue.return_all()

    @rule()
    def close_and_reopen(self) -> None:
        self.run(self.transport.close())
        self.transport = self.run(self.broker.open())
        for queue in self.queues.values():
            queue.stream = None
            queue.return_all()

    def teardown(self) -> None:
        try:
            self._compare()
        finally:
            self.run(self.broker.__aexit__())
            self.runner.close()

    def _compare(self) -> None:
        declared = {name: queue for name, queue in self.queues.items() if queue.is_declared}
        for name, queue in declared.items():
            self.subscribe(name)
            while queue.waiting:
                self._take(queue)
        for queue in declared.values():
            assert queue.stream is not None
            assert self.run(self.broker.texts_before_end(self.transport, queue.stream)) == []
        letters = self.run(self.broker.dead_letters(self.transport))
        assert texts_of(letters) == self.dead


class TestModel:
    def test_the_transport_behaves_like_the_model(
        self,
        transport_class: type[EventTransport],
        event_transport: TransportSettings,
        patience: float,
    ) -> None:
        class Machine(TransportMachine):
            def __init__(self) -> None:
                super().__init__(
                    BrokerUnderTest(transport_class, event_transport, patience=patience)
                )

        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=20,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
