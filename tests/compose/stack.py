"""compose.yaml, up and running: what ``docker-compose`` and the containers say."""

from __future__ import annotations

import json
import re
import resource
import time
from typing import Any

import jwt
from roomcast_client import Roomcast

from tests.compose.engine import Engine, run
from tests.compose.images import ROOT
from tests.support.node import lasting_port

SECRET = "a secret for the compose test, of 32 bytes"
API_KEY = "key-for-the-compose-test-0123456789"
PROJECT = "roomcasttest"
WITHOUT = "--scale=grafana=0"
"""Debian has no Grafana."""
POLL_S = 0.5  # each look is a process


def token_of(user: str) -> str:
    return jwt.encode({"user_id": user, "exp": time.time() + 900}, SECRET, "HS256")


class Stack:
    """One installation. ``engine`` may be replaced: images are built where there is a network to fetch packages from,
    containers run where nobody else is."""

    def __init__(self, engine: Engine, images: dict[str, str]) -> None:
        self.engine = engine
        self.port, self.operators_port, self.tls_port = lasting_port(), lasting_port(), lasting_port()
        self.certificates = engine.directory / "certificates"
        self.files: tuple[str, ...] = ("compose.yaml", "deploy/compose.operators.yaml")
        self._env_file = engine.directory / "env"
        self._env_file.write_text(
            _filled_in(
                (ROOT / ".env.example").read_text(),
                **images,
                NODE_IMAGE="roomcast-test/node",
                GRAFANA_IMAGE=images["NGINX_IMAGE"],  # is not started, but must be there
                REDIS_PASSWORD="c0ffee",
                REDIS_OPERATOR_PASSWORD="decaf",
                GRAFANA_PASSWORD="unused",
                ROOMCAST_SECRET=SECRET,
                ROOMCAST_API_KEYS=f"test:publish+read+admin:{API_KEY}",
                PORT=str(self.port),
                OPERATORS_PORT=str(self.operators_port),
                TLS_PORT=str(self.tls_port),
                CERTIFICATES=str(self.certificates),
                NOFILE=str(min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])),
            )
        )
        self._host_network = engine.directory / "build.yaml"
        self._host_network.write_text("services: {node: {build: {network: host}}}\n")

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def _command(self, *files: str) -> list[str]:
        named = [word for path in (*self.files, *files) for word in ("-f", str(ROOT / path))]
        return ["docker-compose", *named, "-p", PROJECT, "--env-file", str(self._env_file)]

    def compose(self, *arguments: str, files: tuple[str, ...] = (), timeout_s: float = 180) -> str:
        return run([*self._command(*files), *arguments], self.engine.environment, timeout_s=timeout_s)

    def upgrade(self) -> None:
        """deploy/upgrade."""
        environment = self.engine.environment | {"COMPOSE": " ".join(self._command())}
        run([str(ROOT / "deploy" / "upgrade")], environment, timeout_s=180)

    def build(self) -> None:
        """The node's image, by compose.yaml's own build section. The engine has the machine's network."""
        self.compose("build", "node", files=(str(self._host_network),), timeout_s=600)

    def scale(self, nodes: int) -> None:
        """``up`` with so many nodes. Returns when those too many have drained and are gone."""
        self.compose("up", "-d", "--no-build", "--no-recreate", f"--scale=node={nodes}", WITHOUT)

    def serve_https(self) -> None:
        """nginx anew, with deploy/compose.tls.yaml too."""
        self.compose("up", "-d", "--no-build", "--no-deps", "nginx", files=("deploy/compose.tls.yaml",))

    def down(self) -> None:
        self.compose("down", "-v", "-t", "40")

    def client(self, user: str) -> Roomcast:
        """Of this user, through nginx."""
        return Roomcast(self.ws_url, token=token_of(user))

    def ids(self, service: str) -> list[str]:
        """Its containers, those that were stopped included."""
        return self.engine.docker("ps", "-aq", "--filter", f"label=com.docker.compose.service={service}").split()

    def containers(self, service: str) -> list[dict[str, Any]]:
        """What ``docker inspect`` says about each."""
        ids = self.ids(service)
        found: list[dict[str, Any]] = json.loads(self.engine.docker("inspect", *ids)) if ids else []
        return found

    def wait_healthy(self, service: str, count: int, timeout_s: float = 60) -> None:
        """Return once so many run and their health checks say that all is well. AssertionError with their logs."""
        deadline = time.monotonic() + timeout_s
        while not self._healthy(service, count):
            assert time.monotonic() < deadline, f"not {count} healthy {service}: {self.logs(service)[-3000:]}"
            time.sleep(POLL_S)

    def _healthy(self, service: str, count: int) -> bool:
        states = [container["State"] for container in self.containers(service)]
        return len(states) == count and all(state.get("Health", {}).get("Status") == "healthy" for state in states)

    def execute(self, service: str, *command: str) -> str:
        """The output of a command inside the first container of a service, errors included."""
        name = self.containers(service)[0]["Name"]
        return self.engine.docker("exec", name, "sh", "-c", '"$@" 2>&1 || true', "sh", *command)

    def query(self, expression: str) -> dict[str, float]:
        """An instant query to Prometheus: instance -> value."""
        answer = self.execute("prometheus", "promtool", "query", "instant", "http://localhost:9090", expression)
        found = re.findall(r'instance="([^"]+)".* => (\S+) @', answer)
        return {instance: float(value) for instance, value in found}

    def logs(self, service: str) -> str:
        return self.compose("logs", "--no-color", service)


def _filled_in(example: str, **values: str) -> str:
    """.env.example with these values; names it has not are added."""
    for name, value in values.items():
        example, found = re.subn(rf"(?m)^#? ?{name}=.*$", lambda _, line=f"{name}={value}": line, example)  # type: ignore[misc]
        if not found:
            example += f"{name}={value}\n"
    return example
