"""What travels on a channel: one version byte, then one msgpack array. Pure.

    01 [0, payload]                               a signal (ephemeral)
    01 [1, epoch, offset, prev, tag, payload]     an entry of a room's log (built by lua/append.lua)
    01 [2, epoch, version, user, online]          a presence change (built by the presence scripts; online is 1 or 0)
    01 [3, nonce]                                 the node's own probe

Strings are msgpack ``raw`` (Redis' cmsgpack knows no ``bin``), so everything comes back as bytes.
Readers accept VERSION and VERSION - 1, so nodes of two neighbouring releases share a cluster.
"""

from __future__ import annotations

import msgpack

from broker.base import Change, Entry, Item, Probe, Signal

VERSION = 1

SIGNAL, ENTRY, CHANGE, PROBE = range(4)


class NewerVersion(ValueError):
    """A later release wrote this. On a room's channel something may have been missed: verify the room."""


def encode_signal(payload: bytes) -> bytes:
    return b"\x01" + msgpack.packb((SIGNAL, payload), use_bin_type=False)


def decode(data: bytes) -> Item | Probe:
    """Read one envelope. Raises :class:`NewerVersion`, or ValueError for bytes that are not ours."""
    if not data or data[0] > VERSION:
        if data and data[0] < 0x20:
            raise NewerVersion(f"envelope version {data[0]} is newer than {VERSION}: upgrade this node")
        raise ValueError("not an envelope")
    try:
        fields = msgpack.unpackb(data[1:], raw=True, use_list=False, max_array_len=8, max_map_len=0, max_ext_len=0)
        kind = fields[0]
        if kind == ENTRY:
            _, epoch, offset, prev, tag, payload = fields
            if type(offset) is int and type(payload) is bytes and type(epoch) is bytes and type(tag) is bytes:
                return Entry(epoch, offset, prev, tag, payload)
        elif kind == SIGNAL:
            _, payload = fields
            if type(payload) is bytes:
                return Signal(payload)
        elif kind == CHANGE:
            _, epoch, version, user, online = fields
            if type(epoch) is bytes and type(version) is int:
                return Change(epoch, version, user.decode(), online == 1)
        elif kind == PROBE:
            _, nonce = fields
            if type(nonce) is bytes:
                return Probe(nonce)
    except Exception as error:  # msgpack raises a dozen unrelated types on hostile bytes
        raise ValueError("not an envelope") from error
    raise ValueError("not an envelope")
