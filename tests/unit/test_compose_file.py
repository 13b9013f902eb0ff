"""docker-compose.regtest.yml and ops/Dockerfile, as far as they can be checked without an engine.

tests/compose runs them; this is what must hold wherever `make test` runs.
"""

from __future__ import annotations

import re
from pathlib import Path

from regtest.docker_images import IMAGES
from tests.compose.stack import IMAGE, ONE_SHOT, PORTS, PYTHON_IMAGE

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "docker-compose.regtest.yml").read_text()
DOCKERFILE = (ROOT / "ops" / "Dockerfile").read_text()
PUBLISHED = re.findall(r'"?([\d.]*):?\$\{(REGTEST_\w+):-(\d+)\}:(\d+)"', COMPOSE)


def services() -> dict[str, str]:
    """The text of each service, by name."""
    (block,) = re.findall(r"^services:\n(.*?)^volumes:", COMPOSE, re.MULTILINE | re.DOTALL)
    parts = re.split(r"^  (\w+):", block, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_port_is_on_loopback_and_in_the_readme() -> None:
    """With its variable and its default."""
    assert len(PUBLISHED) == COMPOSE.count("REGTEST_") - COMPOSE.count("REGTEST_BUILD_NETWORK")
    assert {host for host, *_ in PUBLISHED} == {"127.0.0.1"}
    assert {variable for _, variable, _, _ in PUBLISHED} == set(PORTS)
    readme = (ROOT / "README.md").read_text()
    rows = [line for line in readme.splitlines() if "`REGTEST_" in line]
    for _, variable, port, _ in PUBLISHED:
        assert any(f"`{variable}`" in row and f":{port}" in row for row in rows), variable


def test_every_image_is_pinned() -> None:
    """To a version that is no moving name."""
    named = re.findall(r"^\s*image: (\S+)", COMPOSE, re.MULTILINE) + re.findall(
        r"^FROM (\S+)", DOCKERFILE, re.MULTILINE
    )
    assert named
    assert [name for name in named if not re.search(r":v?\d+\.\d+", name) and name != IMAGE] == []


def test_what_is_made_here_has_the_names_that_are_asked_for() -> None:
    """All but Grafana's, which nobody can make here."""
    named = set(re.findall(r"^\s*image: (\S+)", COMPOSE, re.MULTILINE)) - {IMAGE} | {PYTHON_IMAGE}
    made = {image.name for image in IMAGES}
    assert made <= named
    assert {name.partition(":")[0] for name in named - made} == {"grafana/grafana"}


def test_every_service_has_a_health_check_or_ends() -> None:
    """tellerd's stands in its image; those that end are told by their exit code."""
    for name, text in services().items():
        inherits = "<<: *lnd" in text or (name == "tellerd" and "HEALTHCHECK" in DOCKERFILE)
        assert ("test: " in text) != (name in ONE_SHOT or inherits), name


def test_every_healthy_service_is_waited_for_by_condition() -> None:
    """Never by order alone."""
    assert re.findall(r"depends_on: *\[", COMPOSE) == []
    assert COMPOSE.count("condition: ") == len(re.findall(r"^      \w+: \{ condition: \w+ \}", COMPOSE, re.MULTILINE))


def test_the_image_gets_no_package_without_a_hash() -> None:
    """Every pip that may reach an index asks for hashes, and builds with what is pinned."""
    steps = re.split(r"\n(?=[A-Z]+ )|&&", DOCKERFILE.replace("\\\n", " "))
    installs = [step for step in steps if re.search(r"pip\S* .*(?:install|wheel)\b", step) and "COPY" not in step]
    assert len(installs) == 4
    for step in installs:
        assert "--require-hashes" in step or "--no-index" in step or "--no-deps --no-build-isolation" in step, step
