"""The conformance suite catches each transport with a fault, in the case that is meant for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conformance.mutants import MUTANTS

TESTS = Path(__file__).parent.parent

SUITE = """
import secrets

import pytest

from conformance.mutants import MUTANTS
from lightbus.testing.conformance import *


@pytest.fixture
def event_transport():
    return {{"memory": {{"name": secrets.token_hex(4)}}}}


@pytest.fixture
def transport_class():
    return MUTANTS[{mutant!r}]


@pytest.fixture
def patience():
    return 0.5
"""

CAUGHT_BY = {
    "ClaimsToBeShared": "test_another_process_shares_the_broker",
    "CountsOneEventTooMany": "test_waiting_events_are_counted",
    "DescribesNoServer": "test_the_description_of_an_event_is_json_with_a_server",
    "DoesNotListAFeature": "a_feature_is_listed_if_and_only_if_it_is_implemented and FindEvent",
    "FindsNothing": "test_an_event_is_found_in_each_queue_by_its_id",
    "IsAlwaysHealthy": "test_a_transport_is_healthy_while_it_works_and_not_when_it_is_closed",
    "RemovesQueuesInUse": "test_a_queue_is_not_removed_while_a_worker_consumes_from_it",
    "ShowsEventsOfEveryApi": "test_events_of_another_api_are_not_shown",
    "StartsALastAttemptOnce": "test_a_requeued_last_attempt_can_start_again",
    "AcksTwice": "test_one_consumer_receives_events_in_the_order_they_were_sent",
    "DeliversToOneListenerOnly": "test_each_listener_of_each_service_receives_each_event",
    "DiscardsReadDeadLetters": "test_reading_dead_letters_leaves_those_that_are_not_discarded",
    "DropsOnRequeue": "test_a_requeued_event_is_redelivered_unchanged",
    "ForgetsTheAttempt": "test_an_event_retried_at_once_is_delivered_as_the_next_attempt",
    "ForgetsTheFailure": "test_a_dead_letter_keeps_the_event_and_its_failure",
    "PrefetchesEverything": "test_a_listener_holds_few_events_ahead",
    "LeavesUnsettledEventsBehind": "test_an_unsettled_event_is_redelivered",
    "LosesDeadLetters": "test_a_dead_letter_keeps_the_event_and_its_failure",
    "LosesEventsInAMigration": "test_what_was_declared_matches_and_a_migration_keeps_its_events",
    "RetriesAtOnce": "test_a_retried_event_is_delivered_after_its_delay_and_others_do_not_wait",
    "ReturnsFromSendEarly": "test_a_send_that_returned_has_stored_the_event",
    "ReversesOrder": "test_one_consumer_receives_events_in_the_order_they_were_sent",
    "SendsWhenClosed": "test_a_closed_transport_sends_nothing_and_says_so",
    "SharesDeadLettersAmongReaders": "test_readers_at_the_same_time_each_read_all_dead_letters",
    "SettlesAgain": "test_a_second_settlement_does_nothing and requeue",
}


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_the_suite_catches(tmp_path: Path, mutant: str) -> None:
    suite = tmp_path / "test_mutant.py"
    suite.write_text(SUITE.format(mutant=mutant))

    ended = subprocess.run(
        [sys.executable, "-m", "pytest", suite, "-k", CAUGHT_BY[mutant], "-q", "--no-header"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert ended.returncode == pytest.ExitCode.TESTS_FAILED, ended.stdout + ended.stderr
    result = ended.stdout.splitlines()[-1]
    assert "failed" in result
    assert "error" not in result
    assert "passed" not in result
