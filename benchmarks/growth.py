"""Measures how listeners, APIs, body sizes and the backlog affect the rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs

from benchmarks.comparing import Bench, Case, Quantity, Result, rate
from benchmarks.environments import AIO_PIKA, THIS_BUS, Contender
from benchmarks.report import Line, Plot, Report

LISTENERS = (1, 10, 50, 200)
APIS = (1, 10, 50, 200)
BODIES = (100, 1024, 10 * 1024, 100 * 1024, 1024 * 1024)
BACKLOGS = (1_000, 10_000, 100_000, 1_000_000)
QUICK_BACKLOG = 10_000


@attrs.frozen
class Way:
    """A contender with one of its transports."""

    contender: Contender
    transport: str
    colour: str

    @property
    def name(self) -> str:
        """The name to show."""
        return f"{self.contender.name}, {self.transport}"


RABBITMQ = Way(THIS_BUS, "rabbitmq", THIS_BUS.colour)
OURS = (RABBITMQ, Way(THIS_BUS, "sqlite", "#ca8a04"), Way(THIS_BUS, "memory", "#be185d"))
BY_HAND = Way(AIO_PIKA, "rabbitmq", AIO_PIKA.colour)


def run(bench: Bench) -> Report:
    """Run the benchmarks of this topic."""
    return Report(plots=[listeners(bench), apis(bench), bodies(bench), backlog(bench)])


def listeners(bench: Bench) -> Plot:
    def case(way: Way, many: int) -> Case:
        count = {"count": max(bench.count(20_000)["count"] // many, 20), "warm_up": 5}
        return bench.case(
            way.contender,
            "fire_and_handle",
            label=f"{way.transport}, {many} listeners",
            transport=way.transport,
            listeners=many,
            **count,
        )

    return Plot(
        name="listeners",
        title="Handled events a second, by listeners",
        x_label="listeners in one process, each of which handles every event",
        y_label="handled a second, all listeners together",
        lines=lines(bench, OURS, LISTENERS, case),
        y_from_zero=False,
    )


def apis(bench: Bench) -> Plot:
    def case(way: Way, many: int) -> Case:
        return bench.case(
            way.contender,
            "fire_and_handle",
            label=f"{way.transport}, {many} APIs",
            transport=way.transport,
            apis=many,
            **bench.count(10_000),
        )

    return Plot(
        name="apis",
        title="Events fired and handled a second, by APIs",
        x_label="APIs in one process, with a listener each",
        y_label="events a second",
        lines=lines(bench, OURS, APIS, case),
        y_from_zero=False,
    )


def bodies(bench: Bench) -> Plot:
    def case(way: Way, size: int) -> Case:
        count = max(min(5_000, 100 * 1024 * 1024 // size) // (10 if bench.is_quick else 1), 20)
        return bench.case(
            way.contender,
            "fire_and_handle",
            label=f"{way.transport}, {size:,} bytes",
            transport=way.transport,
            body=size,
            in_flight=20,
            count=count,
            warm_up=10,
        )

    return Plot(
        name="bodies",
        title="Events fired and handled a second, by size",
        x_label="bytes of JSON (20 events in flight)",
        y_label="events a second",
        lines=lines(bench, (*OURS, BY_HAND), BODIES, case),
        y_from_zero=False,
    )


def backlog(bench: Bench) -> Plot:
    sizes = [size for size in BACKLOGS if size <= QUICK_BACKLOG or not bench.is_quick]
    return Plot(
        name="backlog",
        title="Events handled a second, by how many wait",
        x_label="events that wait",
        y_label="events a second",
        lines=lines(
            bench,
            (*OURS, BY_HAND),
            sizes,
            lambda way, size: backlog_case(bench, way, size),
            # Firing this many events takes minutes.
            most_rounds=lambda size: 1 if size == max(BACKLOGS) else 3,
        ),
        y_from_zero=False,
    )


def backlog_case(bench: Bench, way: Way, size: int, *, prefetch: int = 50, body: int = 100) -> Case:
    """Return a case that handles the first events of a backlog of `size` events.

    They are fired by a process of its own, so that the one that handles has never held them.
    """
    handled = {"count": min(size, 5_000) - 100, "warm_up": 100}
    settings = {"transport": way.transport, "prefetch": prefetch, "body": body}

    def run() -> Result:
        with bench.brokers.place(way.contender, way.transport) as url:
            fired = {"count": size, "warm_up": 0}
            bench.measure(way.contender, "fire", url=url, **fired, **settings)
            filled = {"is_filled": True, **handled, **settings}
            return bench.measure(way.contender, "handle", url=url, **filled)

    label = f"{way.transport}, {size:,} waiting, prefetch {prefetch:,}"
    if way.transport == "memory":
        behind = size - 5_000 if size > 5_000 else 0  # noqa: PLR2004 - as many as are handled
        return bench.case(
            way.contender, "handle", label=label, backlog=behind, **handled, **settings
        )
    return Case(way.contender, run, label)


def lines(
    bench: Bench,
    ways: Iterable[Way],
    places: Iterable[int],
    case: Callable[[Way, int], Case],
    *,
    quantity: Quantity = rate,
    most_rounds: Callable[[int], int] = lambda _: 5,
) -> list[Line]:
    """Measure each contender for each value, and return a line for each."""
    drawn = {way: Line(way.name, way.colour, {}) for way in ways}
    for place in places:
        cases = [case(way, place) for way in drawn]
        for line, series in zip(
            drawn.values(), bench.alternate(cases, most_rounds=most_rounds(place)), strict=True
        ):
            if (summary := series.summary(quantity)) is not None:
                line.points[place] = summary
    return list(drawn.values())
