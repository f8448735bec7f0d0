"""What the error replies of one server and another mean."""

from __future__ import annotations

import hiredis
import pytest

from broker.base import OutcomeUnknown, Unavailable
from broker.redis.errors import broker_error

NO_RIGHT = {
    "a command": "NOPERM this user has no permissions to run the 'set' command",
    "a script, Redis 7.0": "ERR The user executing the script can't run this command or subcommand script: 21ff, on "
    "@user_script:1.",
    "a script, Redis 8.2 and Valkey": "ERR ACL failure in script: User u has no permissions to run the 'set' command",
}


@pytest.mark.parametrize("text", NO_RIGHT.values(), ids=NO_RIGHT)
def test_a_right_that_is_missing_is_named_and_nothing_was_done(text: str) -> None:
    error = broker_error(hiredis.ReplyError(text))
    assert isinstance(error, Unavailable) and "broker/redis/acl.py" in str(error) and text in str(error)


def test_an_error_that_is_not_known_leaves_the_outcome_open() -> None:
    assert isinstance(broker_error(hiredis.ReplyError("ERR user_script:3: a mistake")), OutcomeUnknown)
