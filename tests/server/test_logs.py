"""Log lines: JSON or human, never with a credential."""

from __future__ import annotations

import io
import json
import logging
import warnings
from typing import Literal

import pytest

from server import logs

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9.c2lnbmF0dXJl"


pytestmark = pytest.mark.usefixtures("logging_as_before")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def configured(
    format: Literal["auto", "human", "json"] = "json", level: str = "info", stream: io.StringIO | None = None
) -> io.StringIO:
    stream = stream or io.StringIO()
    logs.configure(format, level, stream)
    return stream


def test_a_json_line_carries_the_fields_that_were_given() -> None:
    stream = configured()
    logging.getLogger("server.hub").warning("degraded: %s", "no answer", extra={"connection": 17, "request": "a1"})
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning",
        "logger": "server.hub",
        "message": "degraded: no answer",
        "connection": 17,
        "request": "a1",
    }


def test_an_exception_is_one_json_line() -> None:
    stream = configured()
    try:
        raise RuntimeError(f"bad token={JWT}\nforged line")
    except RuntimeError:
        logging.getLogger("x").exception("failed")
    (line,) = stream.getvalue().splitlines()
    exception = json.loads(line)["exception"]
    assert "RuntimeError" in exception and "token=***" in exception and JWT not in exception


def test_human_lines_are_coloured_only_in_a_terminal() -> None:
    stream = configured("auto", stream=Terminal())
    logging.getLogger("server.hub").error("away", extra={"connection": 17})
    assert stream.getvalue().startswith("\x1b[31m") and "error   server.hub  away  connection=17" in stream.getvalue()
    stream = configured("human")
    logging.getLogger("server.hub").error("away")
    assert "\x1b" not in stream.getvalue() and stream.getvalue().endswith("error   server.hub  away\n")


def test_auto_is_json_outside_a_terminal() -> None:
    stream = configured("auto")
    logging.getLogger("x").info("hello")
    assert json.loads(stream.getvalue())["message"] == "hello"


@pytest.mark.parametrize("format", ["json", "human"])
def test_no_credential_reaches_a_line(format: Literal["json", "human"]) -> None:
    stream = configured(format)
    logger = logging.getLogger("uvicorn.error")
    logger.info('%s - "WebSocket %s" [accepted]', ("127.0.0.1", 5), f"/ws?token={JWT}&session=abcdef")
    logger.info("headers", extra={"headers": [(b"authorization", f"Bearer {JWT}".encode())]})
    logger.info("broker %s", "redis://user:hunter2@host/0")
    text = stream.getvalue()
    assert len(text.splitlines()) == 3
    assert not any(secret in text for secret in (JWT, JWT.split(".")[1], "abcdef", "hunter2"))


def test_outside_text_can_neither_forge_a_line_nor_drive_a_terminal() -> None:
    stream = configured("human")
    logging.getLogger("x").info("room %s", "a\n12:00:00 error   forged\x1b[2J\ud800")
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()


def test_the_level_holds_and_chatty_libraries_stay_quiet() -> None:
    stream = configured(level="debug")
    logging.getLogger("server.hub").debug("seen")
    logging.getLogger("websockets.server").debug("< TEXT with the user's words")
    logging.getLogger("websockets.server").info("connection open")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["seen"]
    stream = configured(level="warning")
    logging.getLogger("server.hub").info("not seen")
    assert stream.getvalue() == ""


def test_warnings_become_log_lines() -> None:
    stream = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old setting", DeprecationWarning, stacklevel=1)
    assert "old setting" in json.loads(stream.getvalue())["message"]


def test_configuring_again_replaces_the_former_setup() -> None:
    first = configured()
    second = configured()
    logging.getLogger("x").info("once")
    assert first.getvalue() == "" and len(second.getvalue().splitlines()) == 1
