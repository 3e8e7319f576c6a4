"""The JSON Schema of a config file."""

from __future__ import annotations

import json
from typing import Any

import jsonschema

from command import Command


def errors(schema: dict[str, Any], config: dict[str, Any]) -> list[str]:
    validator = jsonschema.Draft202012Validator(schema)
    return [error.json_path for error in validator.iter_errors(config)]


def test_the_schema_accepts_valid_configurations_and_refuses_others(
    command: Command, config: dict[str, Any]
) -> None:
    code, printed, _ = command("config", "schema")
    assert code == 0
    schema = json.loads(printed)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert errors(schema, config) == []
    assert errors(schema, {}) == []
    assert errors(schema, {"shutdown_timeout": "${SECONDS}", "$schema": "config.json"}) == []
    assert errors(schema, {"apis": {"a": {"max_attempts": "${COUNT}"}}}) == []
    assert errors(schema, {"apis": {"a": {"max_attempts": "many"}}})
    assert errors(schema, {"apis": {"a": {"event_transport": {"sqlite": None}}}}) == []
    assert errors(schema, {"apis": {"a": {"event_transport": {}}}})
    assert errors(schema, {"apis": {"a": {"event_transport": {"redis": {}}}}})
    assert errors(schema, {"apis": {"a": {"event_transport": {"rabbitmq": {"url": 3}}}}})
    assert errors(schema, {"apis": {"a": {"max_attempts": 0}}})
    assert errors(schema, {"servce_name": "shop"})
    assert errors(schema, {"service_name": ""})
    assert errors(schema, {"apis": {"a": {"on_error": "retry"}, "b": {"on_error": "${X}"}}}) == []
    assert errors(schema, {"apis": {"a": {"on_error": "ignore"}}})
