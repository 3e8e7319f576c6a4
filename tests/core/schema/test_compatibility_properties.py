"""What `breaking_changes` passes, handlers accept: for random types, changes and values."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from core.schema.random_shapes import all_shapes
from core.schema.shapes import Shape, changed
from lightbus import Api, Event, EventMessage, Parameter
from lightbus.encoding import json_codec
from lightbus.handling.signatures import plan_call
from lightbus.schema.events import breaking_changes, schema_of

# The explanation of a failure would take longer than a test may.
without_explanation = settings(
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def schema_for(shape: Shape) -> dict[str, Any]:
    """Return what `lightbus schema dump` prints for an event with one parameter."""
    members = {
        "e": Event([Parameter("x", shape.hint)]),
        "Meta": type("Meta", (), {"name": "a"}),
    }
    found: dict[str, Any] = json.loads(json.dumps(schema_of([type("AnApi", (Api,), members)])))
    return found


def handle(shape: Shape, body: bytes) -> None:
    """Give an event to a handler that takes what `shape` is."""

    def handler(x: Any) -> None: ...

    handler.__annotations__ = {"x": shape.hint}
    note(f"{body!r} for {shape.hint}")
    message = EventMessage(api_name="a", event_name="e", body=body)
    plan_call(handler, "a.e", None).arguments(message)


@settings(without_explanation, max_examples=300)
@given(all_shapes.flatmap(lambda shape: st.tuples(st.just(shape), changed(shape))), st.data())
def test_handlers_of_both_versions_accept_events_of_compatible_types(
    versions: tuple[Shape, Shape], data: st.DataObject
) -> None:
    old, new = versions
    before, after = schema_for(old), schema_for(new)
    note(f"{before}\n{after}")
    if not list(breaking_changes(before, after)):
        # New events meet old handlers, and old events that wait meet new ones.
        for fired, handled in ((new, old), (old, new)):
            handle(handled, json_codec.encode({"x": data.draw(fired.values)}))


@settings(without_explanation, max_examples=100)
@given(all_shapes, st.data())
def test_the_schema_of_a_type_accepts_its_fired_values(shape: Shape, data: st.DataObject) -> None:
    schema = schema_for(shape)
    body = json_codec.encode({"x": data.draw(shape.values)})
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate({"a.e": json_codec.decode(body)}, schema)


@settings(without_explanation, max_examples=100)
@given(all_shapes)
def test_a_type_that_stays_as_it_is_does_not_break_a_listener(shape: Shape) -> None:
    assert list(breaking_changes(schema_for(shape), schema_for(shape))) == []
