"""Options over environment over file, and every mistake in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from broker.base import History
from broker.options import BrokerOptions
from server.configuration import CONFIG, allowed, load_settings
from server.settings import Settings, SettingsError

NOTHING: dict[str, str] = {}


def written(directory: Path, text: str) -> str:
    path = directory / "roomcast.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refusal(
    options: Mapping[str, object] = NOTHING, config: str | None = None, environ: Mapping[str, str] = NOTHING
) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(options, environ, config)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_defaults_are_those_of_the_protocol_and_of_the_brokers() -> None:
    settings, options = Settings(), BrokerOptions()
    assert (settings.host, settings.port, settings.broker, settings.dev) == ("127.0.0.1", 8000, "memory://", False)
    assert (settings.max_message_bytes, settings.outbound_bytes, settings.max_rooms) == (65536, 262144, 100)
    assert (settings.requests_per_s, settings.requests_burst) == (50, 100)
    assert (settings.inbound_bytes_per_s, settings.inbound_bytes_burst) == (128 * 1024, 2**20)
    assert settings.history_of("anything") == History(1000, 300, 8 * 2**20)
    assert (settings.ping_s, settings.linger_s, settings.drain_s) == (10, 1, 20)
    for name in ("prefix", "heartbeat_s", "lease_s", "grace_s"):
        assert getattr(settings, name) == getattr(options, name)


def test_options_win_over_the_environment_and_the_environment_over_the_file(tmp_path: Path) -> None:
    config = written(tmp_path, "port: 1\nping_s: 2\nmax_rooms: 3\n")
    environ = {"ROOMCAST_PORT": "10", "ROOMCAST_PING_S": "20", "PATH": "/bin", "OTHER_PORT": "7"}
    settings = load_settings({"port": "100", "ping_s": None}, environ, config)
    assert (settings.port, settings.ping_s, settings.max_rooms) == (100, 20, 3)


def test_the_environment_may_name_the_file_and_an_option_another(tmp_path: Path) -> None:
    config = written(tmp_path, "port: 1\n")
    assert load_settings({}, {CONFIG: config}).port == 1
    assert load_settings({}, {CONFIG: "/nowhere.yaml"}, config).port == 1


def test_an_empty_value_counts_as_not_given(tmp_path: Path) -> None:
    config = written(tmp_path, "secret:\nport: 5\n")
    settings = load_settings({"host": ""}, {"ROOMCAST_PORT": "", "ROOMCAST_SECRET": "", CONFIG: ""}, config)
    assert (settings.port, settings.secret, settings.host) == (5, None, "127.0.0.1")
    assert load_settings({}, {}, written(tmp_path, "")) == Settings()


def test_text_values_may_carry_units_and_lists_are_comma_separated() -> None:
    settings = load_settings(
        {},
        {
            "ROOMCAST_MAX_MESSAGE_BYTES": "32KiB",
            "ROOMCAST_PING_S": "500ms",
            "ROOMCAST_ORIGINS": "https://a.example, https://*.b.example",
            "ROOMCAST_TRUSTED_PROXIES": "10.0.0.0/8,::1",
            "ROOMCAST_HISTORY": "chat:*=1000/24h,*=none",
            "ROOMCAST_DEV": "1",
        },
    )
    assert (settings.max_message_bytes, settings.ping_s, settings.dev) == (32768, 0.5, True)
    assert settings.origins == ("https://a.example", "https://*.b.example")
    assert settings.trusted_proxies == ("10.0.0.0/8", "::1")
    assert settings.history_of("chat:1").ttl_s == 86400 and settings.history_of("x").max_entries == 0


def test_the_file_may_use_lists_and_mappings(tmp_path: Path) -> None:
    config = written(tmp_path, "origins: [https://a.example]\nhistory:\n  'chat:*': 10/1h\n  'game:*': none\n")
    settings = load_settings({}, {}, config)
    assert settings.origins == ("https://a.example",)
    assert settings.history_of("chat:1") == History(max_entries=10, ttl_s=3600)


def test_who_hears_of_whom_follows_from_dev_unless_said() -> None:
    assert Settings().presence_broadcast == "rooms"
    assert Settings(dev=True).presence_broadcast == "all"
    assert Settings(dev=True, presence_broadcast="none").presence_broadcast == "none"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"ROOMCAST_PROT": "1"}, "ROOMCAST_PROT is not a setting: did you mean ROOMCAST_PORT?"),
        (
            {"ROOMCAST_ZZZZZZ": "1"},
            "ROOMCAST_ZZZZZZ is not a setting: `roomcast serve --help` lists all settings.",
        ),
        (
            {"ROOMCAST_SERVICE_HOST": "10.0.0.1"},
            "ROOMCAST_SERVICE_HOST is not a setting: "
            "it comes from Kubernetes; set enableServiceLinks: false in the pod.",
        ),
        ({"ROOMCAST_PORT": "99999"}, "ROOMCAST_PORT=99999: must be a whole number from 0 to 65535"),
        ({"ROOMCAST_PORT": "x"}, "ROOMCAST_PORT=x: must be a whole number from 0 to 65535"),
        ({"ROOMCAST_DEV": "maybe"}, "ROOMCAST_DEV=maybe: must be true or false"),
        ({"ROOMCAST_REQUESTS_PER_S": "0"}, "ROOMCAST_REQUESTS_PER_S=0: must be a number above 0"),
        ({"ROOMCAST_MAX_ROOMS": "0"}, "ROOMCAST_MAX_ROOMS=0: must be a whole number from 1 to 100000"),
        ({"ROOMCAST_LOG_FORMAT": "xml"}, "ROOMCAST_LOG_FORMAT=xml: must be auto or human or json"),
        ({"ROOMCAST_NODE": "a b"}, "ROOMCAST_NODE=a b: must be 1 to 64 characters of A-Z a-z 0-9 _ . -"),
        ({"ROOMCAST_SECRET": "too short"}, "ROOMCAST_SECRET: must be at least 32 characters"),
        (
            {"ROOMCAST_TRUSTED_PROXIES": "10.0.0.0/8, proxy"},
            "ROOMCAST_TRUSTED_PROXIES=10.0.0.0/8, proxy: "
            "'proxy' is neither an address nor a network such as 10.0.0.0/8",
        ),
        ({"ROOMCAST_LEASE_S": "3"}, "lease_s=3 must be at least three times heartbeat_s=2"),
    ],
)
def test_a_mistake_is_one_line_with_name_value_and_what_is_allowed(environ: dict[str, str], message: str) -> None:
    assert refusal(environ=environ) == message


def test_the_line_names_a_setting_as_it_was_written(tmp_path: Path) -> None:
    config = written(tmp_path, "port: many\n")
    assert refusal(config=config).startswith(f"port in {config}=many: must be")
    assert refusal({"port": "many"}, config).startswith("--port=many: must be")
    config = written(tmp_path, "prot: 1\n")
    assert refusal(config=config) == f"prot in {config} is not a setting: did you mean port?"


def test_a_file_that_cannot_be_used_is_told_in_one_line(tmp_path: Path) -> None:
    assert refusal(config=str(tmp_path / "none.yaml")).endswith("No such file or directory")
    assert "no valid YAML" in refusal(config=written(tmp_path, "a: [1\nb: }"))
    assert "must be a mapping" in refusal(config=written(tmp_path, "- port\n"))
    (tmp_path / "roomcast.yaml").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in refusal(config=str(tmp_path / "roomcast.yaml"))


def test_a_file_cannot_run_code(tmp_path: Path) -> None:
    target = tmp_path / "ran"
    assert "no valid YAML" in refusal(config=written(tmp_path, f"port: !!python/object/apply:os.mkdir ['{target}']\n"))
    assert not target.exists()


def test_secrets_are_in_no_repr_and_no_error() -> None:
    settings = load_settings({}, {"ROOMCAST_SECRET": "s" * 32, "ROOMCAST_BROKER": "redis://u:hunter2@host/0"})
    assert settings.broker == "redis://u:hunter2@host/0"
    assert settings.secret is not None and settings.secret.get_secret_value() == "s" * 32
    for shown in (repr(settings), str(settings)):
        assert "hunter2" not in shown and "sss" not in shown and "redis://u:***@host/0" in shown
    assert "hunter2" not in refusal(environ={"ROOMCAST_SECRET": "hunter2"})


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1


def test_every_setting_is_described_in_one_line_and_knows_its_limits() -> None:
    for name, field in Settings.model_fields.items():
        assert field.title in ("Serving", "Broker", "Access", "Limits", "Logs"), name
        assert field.description and field.description.endswith(".") and len(field.description) <= 100, name
        assert not name.endswith("_s") or "(s)" in field.description or "per second" in field.description, name
        assert allowed(field), name
