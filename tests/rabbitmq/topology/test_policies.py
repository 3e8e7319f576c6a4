"""Policies of an operator that can lose events."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from command import Command
from rabbitmq.topology_support import declare
from rabbitmq_server import RabbitMQServer
from rabbitmq_support import DEAD, QUEUE, Broker, MakeBus
from service import AUTH_API, Service

BUS = (
    AUTH_API
    + """
bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
"""
)


@pytest.fixture
def folder(tmp_path: Path, rabbitmq_url: str, rabbitmq_server: RabbitMQServer) -> Path:
    """The folder of the service."""
    folder = tmp_path / "shop"
    Service(folder, BUS, url=rabbitmq_url, name="shop", acknowledgement_timeout=1)
    (file,) = folder.glob("lightbus.*")
    settings = json.loads(file.read_text())
    host, port = rabbitmq_server.management_host, rabbitmq_server.management_port
    transport = settings["apis"]["default"]["event_transport"]["rabbitmq"]
    transport["management_url"] = f"http://{host}:{port}"
    file.write_text(json.dumps(settings))
    return folder


def policies(folder: Path) -> tuple[int, list[tuple[str, str, str, str]]]:
    """Return the exit code of `lightbus topology`, and the policies in its output."""
    with Command(folder) as command:
        code, printed, said = command("topology", "--format", "json")
    assert printed, said
    return code, [
        (one["kind"], one["name"], one["argument"], one["state"])
        for one in json.loads(printed)
        if "polic" in one["kind"]
    ]


@pytest.mark.parametrize("kind", ["policies", "operator-policies"])
async def test_policies_that_can_lose_events_are_shown(
    make_bus: MakeBus,
    rabbitmq_server: RabbitMQServer,
    rabbitmq_vhost: str,
    folder: Path,
    kind: str,
) -> None:
    await declare(make_bus)
    assert policies(folder) == (0, [("policies", "all queues", "", "ok")])
    harmful = {"expires": 3_600_000, "message-ttl": 3_600_000, "max-length": 10}
    policy = {"pattern": f"^({QUEUE}|{DEAD})$", "definition": harmful, "apply-to": "queues"}
    rabbitmq_server.api("PUT", f"{kind}/{quote(rabbitmq_vhost, safe='')}/bad", policy)

    code, shown = policies(folder)

    one = "policy" if kind == "policies" else "operator policy"
    assert code == 1
    assert sorted(shown) == sorted(
        [
            (one, QUEUE, "expires", "different"),
            (one, QUEUE, "message-ttl", "different"),
            (one, DEAD, "expires", "different"),
            (one, DEAD, "message-ttl", "different"),
            # A listener's queue refuses events when it is full.
            (one, DEAD, "max-length", "different"),
        ]
    )


async def test_harmless_and_unused_policies_are_not_shown(
    make_bus: MakeBus, rabbitmq_server: RabbitMQServer, rabbitmq_vhost: str, folder: Path
) -> None:
    await declare(make_bus)
    all_policies: dict[str, Any] = {
        "harmless": {
            "pattern": "^lightbus:",
            "definition": {"max-length": 1000, "overflow": "reject-publish"},
            "apply-to": "queues",
            "priority": 5,
        },
        "outranked": {"pattern": "^lightbus:", "definition": {"expires": 9000}, "priority": 1},
        "elsewhere": {"pattern": "^other", "definition": {"expires": 9000}, "priority": 9},
        "exchanges": {
            "pattern": ".*",
            "definition": {"alternate-exchange": "a"},
            "apply-to": "exchanges",
            "priority": 9,
        },
    }
    for name, policy in all_policies.items():
        path = f"policies/{quote(rabbitmq_vhost, safe='')}/{name}"
        rabbitmq_server.api("PUT", path, {"apply-to": "all", **policy})

    assert policies(folder) == (0, [("policies", "all queues", "", "ok")])


@pytest.mark.parametrize(
    ("definition", "reason"),
    [({"message-ttl": 100}, "expired"), ({"max-length": 1, "overflow": "drop-head"}, "maxlen")],
    ids=["message-ttl", "max-length"],
)
async def test_a_dead_letter_of_a_policy_has_the_reason(
    *,
    make_bus: MakeBus,
    broker: Broker,
    rabbitmq_server: RabbitMQServer,
    rabbitmq_vhost: str,
    folder: Path,
    definition: dict[str, Any],
    reason: str,
) -> None:
    await declare(make_bus)
    policy = {"pattern": f"^{QUEUE}$", "definition": definition, "apply-to": "queues"}
    rabbitmq_server.api("PUT", f"policies/{quote(rabbitmq_vhost, safe='')}/bad", policy)
    bus = make_bus()
    async with asyncio.timeout(20):
        while not await broker.count(DEAD):
            await bus.auth.user_created.fire_async(username="ann", email="e")
            await asyncio.sleep(0.1)

    with Command(folder) as command:
        shown = json.loads(command("dead-letters", "list", "--format", "json")[1])

    assert {letter["error_type"] for letter in shown} == {f"rabbitmq.{reason}"}
    assert {letter["listener"] for letter in shown} == {"welcome"}
