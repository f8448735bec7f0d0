"""The codes with which a connection ends (docs/protocol.md, "Close codes"; RFC 6455 §7.4). Pure.

Codes of 4000 and above are this protocol's own. Beside each code: what the client should do.
"""

from __future__ import annotations

from typing import Final

NORMAL: Final = 1000
"""Idle timeout, or normal. As the client likes."""
GOING_AWAY: Final = 1001
"""The node is going away. Reconnect after ``retry_after_ms``, resume."""
PROTOCOL_ERROR: Final = 1002
"""Broken frames. Fix the program."""
WRONG_KIND: Final = 1003
"""A binary frame where JSON is spoken, or a text frame where msgpack is. Fix the program."""
INVALID_DATA: Final = 1007
"""A text frame that is not UTF-8. Fix the program."""
POLICY: Final = 1008
"""Policy, for instance an application's own refusal. Do not reconnect."""
TOO_BIG: Final = 1009
"""A frame over ``max_message``. Fix the program."""
INTERNAL_ERROR: Final = 1011
"""A handler failed. Back off, reconnect."""
RESTART: Final = 1012
"""The node is restarting. Reconnect after ``retry_after_ms``, resume."""
OVER_CAPACITY: Final = 1013
"""The node takes no more connections. Back off."""
UNAUTHENTICATED: Final = 4001
"""No or bad credentials. Get a token first."""
BAD_REQUESTS: Final = 4002
"""10 bad requests within 10 s. Fix the program."""
TOKEN_EXPIRED: Final = 4003
"""The token has expired. Get a token, reconnect."""
DISCONNECTED: Final = 4004
"""Disconnected by an operator. Do not reconnect."""
SLOW: Final = 4008
"""Too slow a reader. Reconnect, resume."""
RATE_LIMITED: Final = 4009
"""100 requests over the limit within 10 s. Back off."""
TOO_MANY_CONNECTIONS: Final = 4010
"""Too many connections of this user or address. Back off."""
