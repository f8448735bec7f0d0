"""Log lines: for people in a terminal, one JSON object per line otherwise.

Whatever is logged by whomever passes one formatter, so no line carries a token, a session key or a password, and no
text from outside can forge a line or drive a terminal. Further facts travel as fields::

    logger.info("join refused", extra={"connection": 17, "request": "a1"})
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from server.redact import escape, redact

_OWN_ATTRIBUTES = {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName", "color_message"}
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}
QUIET = ("websockets", "uvicorn.access", "asyncio")
"""Loggers that tell of every connection or frame: from WARNING on only, whatever the level."""


def configure(format: Literal["auto", "human", "json"], level: str, stream: TextIO | None = None) -> None:
    """Send everything from ``level`` on to ``stream`` (standard error). Calling it again replaces the former setup."""
    stream = stream or sys.stderr
    terminal = stream.isatty()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        HumanFormatter(terminal) if format == "human" or (format == "auto" and terminal) else JsonFormatter()
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old.formatter, (HumanFormatter, JsonFormatter))]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as ``extra``."""
    return {name: value for name, value in record.__dict__.items() if name not in _OWN_ATTRIBUTES}


class JsonFormatter(logging.Formatter):
    """``{"time": …, "level": …, "logger": …, "message": …, further fields, "exception": traceback}``."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": escape(redact(record.getMessage())),
        }
        for name, value in _fields(record).items():
            line[name] = value if isinstance(value, (int, float, bool)) or value is None else escape(redact(str(value)))
        if record.exc_info:
            line["exception"] = escape(redact(self.formatException(record.exc_info)), keep_newlines=True)
        return json.dumps(line, ensure_ascii=False)


class HumanFormatter(logging.Formatter):
    """``12:34:56 warning server.hub  degraded: …  connection=17``, the traceback below."""

    def __init__(self, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage() + "".join(f"  {name}={value}" for name, value in _fields(record).items())
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        line = f"{time} {record.levelname.lower():7} {record.name}  {escape(redact(text))}"
        if self._colour and record.levelname in _COLOURS:
            line = f"{_COLOURS[record.levelname]}{line}\x1b[0m"
        if record.exc_info:
            line += "\n" + escape(redact(self.formatException(record.exc_info)), keep_newlines=True)
        return line
