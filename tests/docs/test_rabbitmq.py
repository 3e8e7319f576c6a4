"""docs/rabbitmq.rst, run."""

from __future__ import annotations

import textwrap

from docs.conftest import Shell
from docs.pages import Page

PAGE = Page("rabbitmq")


def test_missing_objects_are_shown_and_then_declared(shell: Shell, rabbitmq_url: str) -> None:
    shown, migrated = PAGE.block("lightbus topology --migrate").splitlines()
    shell.use("rabbitmq", url=rabbitmq_url)

    shell.run(shown, exit_code=1)
    shell.run(migrated)
    shell.run(shown)


def test_the_queue_of_a_listener_that_was_renamed_is_removed(
    shell: Shell, rabbitmq_url: str
) -> None:
    remove = PAGE.block("lightbus listeners remove").strip()
    shell.use("rabbitmq", url=rabbitmq_url)
    with shell.serving():
        pass
    assert "adds this listener" in shell.run(f"{remove} --yes", exit_code=1)
    bus = shell.folder / "bus.py"
    bus.write_text(bus.read_text().replace('listener_name="welcome"', 'listener_name="greet"'))

    assert "Deleted the queue of listener welcome on auth" in shell.run(f"{remove} --yes")


def test_unreachable_nodes_are_skipped(shell: Shell, rabbitmq_url: str) -> None:
    transport = textwrap.indent(PAGE.block("${AMQP_URL_1}"), " " * 6)
    (shell.folder / "lightbus.yaml").write_text(
        f"apis:\n  default:\n    event_transport:\n{transport}"
    )
    shell.environment |= {
        "AMQP_URL_1": "amqp://localhost:1/",
        "AMQP_URL_2": rabbitmq_url,
        "AMQP_URL_3": "amqp://localhost:1/",
    }

    with shell.serving():
        pass
