"""Whole services, as users run them: ``lightbus run``, signals, crashes and exit codes."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path

import pytest

from rabbitmq.service_support import AuthService, listener
from rabbitmq_node import NEW_QUEUES_ARE_SAVED_AFTER, RabbitMQNode
from rabbitmq_server import RabbitMQServer
from rabbitmq_support import Broker, headers_of
from service import Service

# From the user's description
SEED_LISTENER = """
import lightbus

bus = lightbus.create()
user_db = {}


def handle_created(username, email):
    user_db[username] = email
    print(user_db)


def handle_updated(username, email):
    user_db[username] = email
    print(user_db)


def handle_deleted(username, email):
    user_db.pop(username)
    print(user_db)


@bus.client.on_start()
def on_start():
    # Bus client has started up, so register our listeners

    bus.auth.user_created.listen(
        handle_created,
        listener_name="user_created"
    )
    bus.auth.user_updated.listen(
        handle_updated,
        listener_name="user_updated",
    )
    bus.auth.user_deleted.listen(
        handle_deleted,
        listener_name="user_deleted"
    )
"""


def test_the_users_own_two_services_meet(tmp_path: Path, rabbitmq_url: str) -> None:
    auth = AuthService(tmp_path, rabbitmq_url)
    with Service(tmp_path / "other_service", SEED_LISTENER, url=rabbitmq_url) as other:
        fired = auth.fire(
            "import asyncio\n"
            "bus.auth.user_created.fire(username='adam', email='adam@example.com')\n"
            "asyncio.run(bus.auth.user_created.fire_async(username='eve', email='eve@example.com'))"
        )
        other.wait_for_output("'eve': 'eve@example.com'")

        assert (fired.returncode, fired.stderr) == (0, "")
        assert other.output[-1] == "{'adam': 'adam@example.com', 'eve': 'eve@example.com'}"
        assert other.stop() == 0


def test_the_seeds_wrong_arguments_are_all_named_at_once(tmp_path: Path, rabbitmq_url: str) -> None:
    auth = AuthService(tmp_path, rabbitmq_url)

    ended = auth.fire("bus.auth.user_created.fire(username='adam', password='adam@example.com')")

    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        "lightbus.exceptions.InvalidEventArguments: Event auth.user_created was fired with wrong "
        "arguments: missing 'email'; unexpected 'password'."
    )


def test_the_seeds_handlers_that_ask_for_too_much_end_the_worker_with_a_clear_message(
    tmp_path: Path, rabbitmq_url: str
) -> None:
    auth = AuthService(tmp_path, rabbitmq_url)
    with Service(tmp_path / "other_service", SEED_LISTENER, url=rabbitmq_url) as other:
        auth.fire("bus.auth.user_deleted.fire(username='adam')")

        assert other.wait() == 1
        assert other.log[-1]["event"] == (
            "Stopped: handle_deleted() requires 'email', which event auth.user_deleted does not "
            "have; it has 'username'."
        )


def test_a_service_that_was_down_gets_its_thousand_events(
    tmp_path: Path, rabbitmq_url: str
) -> None:
    auth = AuthService(tmp_path, rabbitmq_url)
    shop = Service(tmp_path / "shop", listener(), url=rabbitmq_url)
    with shop:
        assert shop.stop() == 0

    auth.fire_users(1000)

    with shop:
        shop.wait_for_output("done", count=1000)
        assert {line.split()[1] for line in shop.output} == {f"user-{n}" for n in range(1000)}


@pytest.mark.faults
def test_a_failed_listener_ends_the_worker_and_the_next_one_tries_again(
    tmp_path: Path, rabbitmq_url: str
) -> None:
    failing = "raise RuntimeError('no good') if username == 'user-0' else None"
    auth = AuthService(tmp_path, rabbitmq_url)
    shop = Service(
        tmp_path / "shop", listener(failing), url=rabbitmq_url, acknowledgement_timeout=5
    )
    with shop:
        auth.fire_users(1)
        failed_at = shop.wait_for_log("Handler failed")
        started = time.monotonic()
        assert shop.wait() == 1
        assert failed_at["attempt"] == 1

    (shop.folder / "bus.py").write_text(listener())
    auth.fire("bus.auth.user_created.fire(username='other', email='e')")
    with shop:
        shop.wait_for_output("done", count=2)

    assert [line for line in shop.output if "done" in line] == ["done other", "done user-0"]
    assert time.monotonic() - started >= 5 - 0.5


async def test_acknowledge_and_log_keeps_the_worker_and_the_event(
    tmp_path: Path, rabbitmq_url: str, broker: Broker
) -> None:
    auth = AuthService(tmp_path, rabbitmq_url)
    failing = listener("raise RuntimeError('no good')", on_error="ACKNOWLEDGE_AND_LOG")
    with Service(tmp_path / "shop", failing, url=rabbitmq_url) as shop:
        await asyncio.to_thread(auth.fire_users, 1)
        letter = await broker.wait_for_message("lightbus:shop:dead")
        line = await asyncio.to_thread(shop.wait_for_log, "Event could not be handled")

        assert json.loads(letter.body) == {"username": "user-0", "email": "e"}
        assert headers_of(letter)["lightbus-error-message"] == "no good"
        assert line["event_id"] == letter.header.properties.message_id
        assert line["listener"] == "welcome"
        assert line["attempt"] == 1
        assert "RuntimeError: no good" in line["exception"]
        assert await asyncio.to_thread(shop.stop) == 0


def test_sigterm_lets_the_running_handler_finish_and_requeues_the_other_events(
    tmp_path: Path, rabbitmq_url: str
) -> None:
    auth = AuthService(tmp_path, rabbitmq_url)
    wait_for_file = "while username == 'user-0' and not Path('go').exists(): time.sleep(0.01)"
    shop = Service(tmp_path / "shop", listener(wait_for_file), url=rabbitmq_url)
    with shop:
        auth.fire_users(10)
        shop.wait_for_output("begun user-0")
        shop.signal(signal.SIGTERM)
        shop.wait_for_log("Stopping")
        (shop.folder / "go").touch()

        assert shop.wait() == 0
        assert shop.output == ["begun user-0", "done user-0"]

    with shop:
        shop.wait_for_output("done", count=9)
        assert shop.output[0] == "begun user-1"


def test_a_second_signal_stops_at_once_and_the_event_is_redelivered(
    tmp_path: Path, rabbitmq_url: str
) -> None:
    auth = AuthService(tmp_path, rabbitmq_url)
    shop = Service(tmp_path / "shop", listener("time.sleep(30)"), url=rabbitmq_url)
    with shop:
        auth.fire_users(1)
        shop.wait_for_output("begun user-0")
        shop.signal(signal.SIGINT)
        shop.wait_for_log("Stopping")
        started = time.monotonic()
        shop.signal(signal.SIGINT)

        assert shop.wait() == 0
        assert time.monotonic() - started < 10

    (shop.folder / "bus.py").write_text(listener())
    with shop:
        shop.wait_for_output("done user-0")


def test_a_worker_killed_while_it_handles_an_event_loses_no_event(
    tmp_path: Path, rabbitmq_url: str
) -> None:
    auth = AuthService(tmp_path, rabbitmq_url)
    hang = "time.sleep(30) if username == 'user-3' else None"
    shop = Service(tmp_path / "shop", listener(hang), url=rabbitmq_url)
    with shop:
        auth.fire_users(50)
        shop.wait_for_output("begun user-3")
        shop.kill()
        done = {line for line in shop.output if line.startswith("done")}

    (shop.folder / "bus.py").write_text(listener())
    with shop:
        shop.wait_for_output("done", count=50 - len(done))
        done |= {line for line in shop.output if line.startswith("done")}

    assert done == {f"done user-{n}" for n in range(50)}


def test_an_event_that_kills_its_workers_waits_from_the_second_time_on(
    tmp_path: Path, rabbitmq_url: str
) -> None:
    auth = AuthService(tmp_path, rabbitmq_url)
    poison = "__import__('os').kill(__import__('os').getpid(), 9)"
    shop = Service(tmp_path / "shop", listener(poison), url=rabbitmq_url, acknowledgement_timeout=3)
    with shop:
        auth.fire_users(1)
        assert shop.wait() == -signal.SIGKILL
    assert shop.start_process().wait() == -signal.SIGKILL

    with shop:
        waiting = shop.wait_for_log("Event delayed by")
        started = time.monotonic()
        assert shop.wait() == -signal.SIGKILL

    assert waiting["attempt"] == 3
    assert time.monotonic() - started >= 2.5


@pytest.mark.faults
def test_events_prefetched_with_one_that_kills_its_workers_are_only_delayed(
    tmp_path: Path, rabbitmq_url: str
) -> None:
    auth = AuthService(tmp_path, rabbitmq_url)
    poison = "__import__('os').kill(__import__('os').getpid(), 9) if username == 'user-0' else None"
    shop = Service(tmp_path / "shop", listener(poison), url=rabbitmq_url, acknowledgement_timeout=2)
    done: set[str] = set()
    with shop:
        auth.fire_users(20)
        # From its third delivery on, the event is delayed, and the worker handles the others.
        for _ in range(6):
            assert shop.wait() == -signal.SIGKILL
            done |= {line for line in shop.output if line.startswith("done")}
            shop.start_process()

    assert done == {f"done user-{n}" for n in range(1, 20)}


@pytest.mark.faults
@pytest.mark.timeout(120)
async def test_a_broker_restart_while_firing_and_handling_loses_nothing(
    tmp_path: Path, private_rabbitmq_node: RabbitMQNode
) -> None:
    node = private_rabbitmq_node
    auth = AuthService(tmp_path, node.url())
    with Service(tmp_path / "shop", listener("time.sleep(0.002)"), url=node.url()) as shop:
        firing = asyncio.create_task(asyncio.to_thread(auth.fire_users, 1000))
        await asyncio.to_thread(shop.wait_for_output, "done", count=100)
        await asyncio.sleep(NEW_QUEUES_ARE_SAVED_AFTER)
        await asyncio.to_thread(node.kill)
        await asyncio.to_thread(node.start)
        await firing
        await asyncio.to_thread(shop.wait_for_output, "done user-999")

        handled = {line.split()[1] for line in shop.output if line.startswith("done")}
        assert handled == {f"user-{n}" for n in range(1000)}
        assert await asyncio.to_thread(shop.stop) == 0


def test_a_wrong_password_ends_the_start_with_one_line(
    tmp_path: Path, rabbitmq_server: RabbitMQServer, rabbitmq_vhost: str
) -> None:
    url = rabbitmq_server.url(rabbitmq_vhost, password="hunter2")
    shop = Service(tmp_path / "shop", listener(), url=url).start_process()

    assert shop.wait() == 2
    assert [line for line in shop.log if line["level"] == "critical"] == [shop.log[-1]]
    assert "ACCESS_REFUSED" in shop.log[-1]["event"]
    assert "hunter2" not in json.dumps(shop.log)
    assert not any("not_json" in line for line in shop.log)


def test_an_unreachable_broker_ends_the_start_with_one_line(tmp_path: Path) -> None:
    url = "amqp://guest:hunter2@127.0.0.1:1/"
    shop = Service(tmp_path / "shop", listener(), url=url, fire_timeout=1).start_process()

    assert shop.wait() == 1
    assert "127.0.0.1:1" in shop.log[-1]["event"]
    assert "[Errno 111]" in shop.log[-1]["event"]
    assert "hunter2" not in json.dumps(shop.log)
    assert not any("not_json" in line for line in shop.log)
