"""Keys: how they are written, which one is meant, what is never shown."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from server.api.keys import ApiKey, Keyring, parse_keys
from server.configuration import load_settings
from server.settings import Settings, SettingsError

A, B = "a" * 32, "b" * 40


def test_a_key_is_a_name_scopes_and_a_secret() -> None:
    first, second = parse_keys(f"backend:publish+read:{A}, ops:admin:{B}")
    assert (first.name, first.scopes) == (
        "backend",
        frozenset({"publish", "read"}),
    ) and first.secret.get_secret_value() == A
    assert (second.name, second.scopes) == ("ops", frozenset({"admin"}))
    assert parse_keys([f"ops:admin:{B}"]) == (second,) == parse_keys((second,))
    assert parse_keys("") == ()


def test_admin_includes_the_other_scopes_and_they_include_nothing() -> None:
    reader, admin = parse_keys(f"r:read:{A},x:admin:{B}")
    assert admin.allows("publish") and admin.allows("read") and admin.allows("admin")
    assert reader.allows("read") and not reader.allows("publish") and not reader.allows("admin")


@pytest.mark.parametrize(
    "text",
    [
        "a" * 40,
        f"ops:{A}",
        f"ops:root:{A}",
        f"ops:read+read:{A}",
        f"ops::{A}",
        f":read:{A}",
        "ops:read:short",
        f"ops:read:{A}!",
        f"o ps:read:{A}",
        5,
        None,
        [5],
    ],
)
def test_what_is_no_key_is_refused_and_not_repeated(text: Any) -> None:
    with pytest.raises(ValueError) as caught:
        parse_keys(text)
    assert "name:scopes:secret" in str(caught.value)
    assert A not in str(caught.value) and "short" not in str(caught.value)


def test_two_keys_may_share_a_name_but_not_a_secret() -> None:
    assert [key.name for key in parse_keys(f"a:read:{A},a:read:{B}")] == ["a", "a"]
    with pytest.raises(ValueError, match="the same secret"):
        parse_keys(f"a:read:{A},b:admin:{A}")


def test_the_ring_finds_the_key_with_exactly_this_secret() -> None:
    keys = parse_keys(f"a:read:{A},a:publish:{B}")
    ring = Keyring(keys)
    assert (ring.find(A), ring.find(B)) == keys
    for wrong in ("", A[:-1], A + "a", A.upper(), "a", "\ud800", "ü" * 32):
        assert ring.find(wrong) is None
    assert Keyring(()).find("") is None


def test_finding_a_key_takes_the_same_steps_whichever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each digest is compared in constant time, and none is left out: the time tells nothing about the keys."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    ring = Keyring(parse_keys(f"a:read:{A}, b:read:{B}, c:read:{'c' * 32}"))
    monkeypatch.setattr("hmac.compare_digest", compare)
    for presented in (A, B, "c" * 32, "wrong", ""):
        compared.clear()
        ring.find(presented)
        assert len(compared) == 3
        assert all(len(one) == len(other) == 32 and presented.encode() not in (one, other) for one, other in compared)


def test_the_settings_take_keys_and_show_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings({}, {"ROOMCAST_API_KEYS": f"ops:admin:{A}"})
    assert [key.name for key in settings.api_keys] == ["ops"]
    logging.getLogger("x").warning("%s %r", settings, settings.api_keys)
    assert A not in repr(settings) + str(settings) + caplog.text
    assert Settings().api_keys == ()


def test_a_wrong_key_in_the_settings_is_one_line_without_it() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({}, {"ROOMCAST_API_KEYS": f"ops:admin:{A},ops:boss:{B}"})
    message = str(caught.value)
    assert message.startswith("ROOMCAST_API_KEYS: key number 2 must be name:scopes:secret")
    assert A not in message and B not in message and "boss" not in message


def test_keys_come_from_the_file_as_a_list(tmp_path: Any) -> None:
    path = tmp_path / "roomcast.yaml"
    path.write_text(f"api_keys:\n  - ops:admin:{A}\n  - ops:admin:{B}\n")
    found = load_settings({}, {}, str(path)).api_keys
    assert [type(key) for key in found] == [ApiKey, ApiKey]
