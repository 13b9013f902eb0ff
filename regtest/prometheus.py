"""A Prometheus that runs the configuration of ops/prometheus against daemons on this machine."""

from __future__ import annotations

import http.client
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from regtest.process import Node, NodeError, NodeProcess, take_port

OPS: Final = Path(__file__).parents[1] / "ops"
CONFIG: Final = OPS / "prometheus" / "prometheus.yml"
RULES: Final = OPS / "prometheus" / "alerts.yml"

READY_S: Final = 120.0
"""It is up within a second."""

CALL_S: Final = 60.0


class Prometheus(Node):
    """Scrapes and evaluates every `interval_s`; everything else is as in ops/prometheus."""

    def __init__(
        self, command: tuple[str, ...], folder: Path, *, targets: Sequence[str], interval_s: float = 1.0
    ) -> None:
        """`command` is the program (regtest.binaries.prometheus()), `targets` host:port of tellerd's HTTP ports."""
        self.data_folder = folder.absolute()
        self.address = f"127.0.0.1:{take_port()}"
        self._targets = targets
        self._interval_ms = round(1000 * interval_s)
        flags = (
            f"--config.file={self.data_folder}/prometheus.yml",
            f"--storage.tsdb.path={self.data_folder}/data",
            f"--web.listen-address={self.address}",
        )
        self.process = NodeProcess("prometheus", (*command, *flags), self.data_folder / "prometheus.log")

    def start(self) -> None:
        """Start it; it is not ready yet (wait_ready)."""
        self.data_folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(RULES, self.data_folder)
        targets = json.dumps(list(self._targets))
        config, targets_set = re.subn(r"targets: \[.*\]", f"targets: {targets}", CONFIG.read_text())
        config, intervals_set = re.subn(r"_interval: \d+s", f"_interval: {self._interval_ms}ms", config)
        if (targets_set, intervals_set) != (1, 2):
            raise NodeError(f"{CONFIG} is not written as this launcher knows it")
        (self.data_folder / "prometheus.yml").write_text(config)
        super().start()

    def wait_ready(self) -> None:
        """Return when it answers queries; NodeError if not in time."""
        self.process.wait_until(lambda: self._get("/-/ready")[0] == 200, "ready", READY_S)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression has now; NodeError with Prometheus' complaint if it cannot be evaluated."""
        result: list[dict[str, Any]] = self._api("/api/v1/query?" + urlencode({"query": expression}))["result"]
        return result

    def rules(self) -> list[dict[str, Any]]:
        """All rules as Prometheus has read them: name, query, health, annotations."""
        groups = self._api("/api/v1/rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def _api(self, path: str) -> dict[str, Any]:
        _, text = self._get(path)
        answer = json.loads(text)
        if answer["status"] != "success":
            raise NodeError(f"prometheus: {answer.get('error')}")
        data: dict[str, Any] = answer["data"]
        return data

    def _get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self.address, timeout=CALL_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()
