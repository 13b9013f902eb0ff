"""docker-compose.regtest.yml as a project of its own: its images, its life, what stands where."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from regtest.containers.folders import (
    ADMIN_KEY,
    API_CERT,
    LND_CERT,
    LND_MACAROON,
    PAYER_CERT,
    PAYER_MACAROON,
)
from regtest.docker_cli import Docker, DockerError, output_of
from regtest.docker_engine import BUILD_NETWORK
from regtest.docker_images import has_image, make_missing
from regtest.lnd_rest import LndRest
from regtest.process import take_port
from regtest.tellerd import Client

ROOT: Final = Path(__file__).parents[2]
FILE: Final = ROOT / "docker-compose.regtest.yml"
IMAGE: Final = "tellerd:regtest"
PYTHON_IMAGE: Final = "python:3.11-slim"
ONE_SHOT: Final = ("logins", "setup", "traffic")
MAY_BE_ABSENT: Final = "grafana"

PORTS: Final = (
    "REGTEST_API_PORT",
    "REGTEST_BITCOIND_RPC_PORT",
    "REGTEST_GRAFANA_PORT",
    "REGTEST_HTTP_PORT",
    "REGTEST_LND_GRPC_PORT",
    "REGTEST_LND_REST_PORT",
    "REGTEST_MONGO_PORT",
    "REGTEST_PAYER_GRPC_PORT",
    "REGTEST_PAYER_REST_PORT",
    "REGTEST_PROMETHEUS_PORT",
)

PULL_S: Final = 900.0
"""A gigabyte of images over a slow line; without a line it fails at once."""

BUILD_S: Final = 900.0
"""40 s on two idle cores; packages come over the same line."""

UP_S: Final = 300.0
"""20 s on two idle cores; health checks give up earlier."""

DOWN_S: Final = 120.0
"""Seconds; tellerd alone may take its 45."""

CALL_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Service:
    """A container as Compose sees it."""

    name: str
    container: str
    state: str
    health: str
    exit_code: int
    published_on: frozenset[str]

    @property
    def is_well(self) -> bool:
        """Healthy, or ended with 0 if it is one that ends."""
        if self.name in ONE_SHOT:
            return self.state == "exited" and self.exit_code == 0
        return self.state == "running" and self.health == "healthy"

    @property
    def has_failed(self) -> bool:
        """It will not get well by waiting."""
        return self.health == "unhealthy" or (self.state == "exited" and self.exit_code != 0)


class ComposeStack:
    """One project: a name, ports and volumes that no other run has."""

    def __init__(self, docker: Docker, folder: Path, *, build_in_host_network: bool) -> None:
        """`folder` is for what is copied out of the containers."""
        self.docker = docker
        self.project = f"tellerd-test-{uuid.uuid4().hex[:8]}"
        self.ports = {variable: take_port() for variable in PORTS}
        self._developer = folder / "developer"
        self._made: list[str] = []
        self.up_s = 0.0
        self.lnd = self._node("REGTEST_LND_REST_PORT", LND_CERT, LND_MACAROON)
        self.payer = self._node("REGTEST_PAYER_REST_PORT", PAYER_CERT, PAYER_MACAROON)
        self._environment = {
            **docker.environment,
            **{variable: str(port) for variable, port in self.ports.items()},
            **(BUILD_NETWORK if build_in_host_network else {}),
        }

    # --- its life ---------------------------------------------------------------------------------------

    def get_images(self) -> None:
        """All images are there, Grafana's perhaps not: pulled, or made here where no registry can be reached."""
        wanted = set(self.compose("config", "--images").split()) - {IMAGE} | {PYTHON_IMAGE}
        if missing := self._missing(wanted):
            for image in missing:
                try:
                    self.docker.run("pull", "--quiet", image, timeout_s=PULL_S)
                except DockerError:
                    pass  # made below, or named there
        if missing := self._missing(wanted):
            self._made = make_missing(self.docker, missing)
        absent = [image for image in self._missing(wanted) if not image.startswith(f"{MAY_BE_ABSENT}/")]
        assert not absent, f"these images can be neither pulled nor made here: {', '.join(absent)}"
        self.compose("build", timeout_s=BUILD_S)

    def up(self) -> None:
        """Every service is healthy, every one-shot has ended with 0; measures how long the first took."""
        began = time.monotonic()
        try:
            self.compose("up", "--detach", "--no-build", *self.services, timeout_s=UP_S)
        except DockerError as failure:
            raise AssertionError(f"{failure}\n{self._logs()}") from failure
        self.up_s = self.wait_well(lasting_only=True) - began
        self.wait_well()
        shutil.rmtree(self._developer, ignore_errors=True)
        self.compose("cp", "setup:/developer", str(self._developer))

    def wait_well(self, *names: str, lasting_only: bool = False) -> float:
        """Returns when these services (all, if none is named) are well, with the time; fails with their logs."""
        give_up_at = time.monotonic() + UP_S
        while True:
            found = [one for one in self.ps() if not names or one.name in names]
            asked = [one for one in found if not (lasting_only and one.name in ONE_SHOT)]
            unwell = [one for one in asked if not one.is_well]
            if not unwell and {one.name for one in found} == set(names or self.services):
                return time.monotonic()
            if time.monotonic() > give_up_at or any(one.has_failed for one in found):
                raise AssertionError(f"not well: {unwell or found}\n{self._logs()}")
            time.sleep(0.2)

    def down(self, *options: str) -> None:
        """No container and no network of it is left; its volumes are, unless the options say otherwise."""
        for node in (self.lnd, self.payer):
            node.forget_connections()
        self.compose("down", *options, timeout_s=DOWN_S)

    def remove(self) -> None:
        """Its volumes go, too, and every image that only looks like an official one."""
        try:
            self.down("--volumes", "--remove-orphans")
        finally:
            for image in self._made:
                self.docker.run("rmi", "--force", image)

    # --- what is there ----------------------------------------------------------------------------------

    @property
    def services(self) -> list[str]:
        """All that can be run: without Grafana where its image is absent."""
        return sorted(
            name
            for name, service in self.config()["services"].items()
            if name != MAY_BE_ABSENT or has_image(self.docker, service["image"])
        )

    def config(self) -> Mapping[str, Any]:
        """The compose file as Compose reads it."""
        read: dict[str, Any] = json.loads(self.compose("config", "--format", "json"))
        return read

    def ps(self) -> list[Service]:
        """All containers, those that have ended, too."""
        listed = self.compose("ps", "--all", "--format", "json").splitlines()
        return [
            Service(
                name=one["Service"],
                container=one["Name"],
                state=one["State"],
                health=one["Health"],
                exit_code=one["ExitCode"],
                published_on=frozenset(
                    port["URL"] for port in one["Publishers"] or () if port["PublishedPort"] and port["URL"]
                ),
            )
            for one in map(json.loads, listed)
        ]

    def service(self, name: str) -> Service:
        """One of them."""
        (found,) = [one for one in self.ps() if one.name == name]
        return found

    def inspect(self, name: str) -> dict[str, Any]:
        """All that the engine knows of a service's container."""
        found: list[dict[str, Any]] = json.loads(self.docker.run("inspect", self.service(name).container))
        return found[0]

    def finished_at(self, name: str) -> datetime:
        """When its process ended, by the engine's clock, which is this machine's."""
        text = self.inspect(name)["State"]["FinishedAt"]
        return datetime.fromisoformat(f"{text[:23].rstrip('Z')}+00:00")

    def compose(self, *arguments: str, timeout_s: float = CALL_S) -> str:
        """What the command printed; DockerError if it fails."""
        where = ("--file", str(FILE), "--project-name", self.project)
        return output_of((*self.docker.compose, *where, *arguments), self._environment, timeout_s)

    def figures(self) -> Sequence[str]:
        """For the end of the run."""
        size, base = (self._image_mb(image) for image in (IMAGE, PYTHON_IMAGE))
        absent = sorted(set(self.config()["services"]) - set(self.services))
        return [
            f"engine {self.docker.answers()}: up to all healthy {self.up_s:.1f} s",
            f"image of tellerd {size:.0f} MB, {size - base:.0f} MB of them on top of {PYTHON_IMAGE}",
            *([f"made here, no registry: {', '.join(self._made)}"] if self._made else []),
            *(f"{name} was NOT run: its image can be neither pulled nor made here" for name in absent),
        ]

    def _node(self, port: str, certificate: str, macaroon: str) -> LndRest:
        """Its certificate and its macaroon are read with the first call."""
        return LndRest(self.ports[port], self.developer_file(certificate), self.developer_file(macaroon))

    def _logs(self) -> str:
        """The end of what each container said."""
        return self.compose("logs", "--no-color", "--tail=30")

    def _image_mb(self, image: str) -> float:
        return int(self.docker.run("image", "inspect", "--format", "{{.Size}}", image)) / 1e6

    def _missing(self, images: set[str]) -> list[str]:
        return sorted(image for image in images if not has_image(self.docker, image))

    # --- from outside -----------------------------------------------------------------------------------

    def address(self, variable: str) -> str:
        """host:port on this machine."""
        return f"127.0.0.1:{self.ports[variable]}"

    def developer_file(self, name: str) -> Path:
        """Out of setup:/developer."""
        return self._developer / name

    @property
    def admin_key(self) -> str:
        """Of the API."""
        return self.developer_file(ADMIN_KEY).read_text().strip()

    def client(self) -> Client:
        """With TLS and the admin key."""
        certificate = self.developer_file(API_CERT).read_bytes()
        return Client(self.address("REGTEST_API_PORT"), root_certificate=certificate, key=self.admin_key)
