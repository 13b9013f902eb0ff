"""The whole path: simulated LND, daemon and database, each a process of its own, driven from here."""

from __future__ import annotations

import http.client
import json
import os
import queue
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from adapters.mongo import collections as names
from adapters.mongo.store import MongoStore
from daemon.domain.money import Currency
from regtest.mongod import Mongod
from regtest.process import take_port
from regtest.stack import TELLERD_TOML
from regtest.tellerd import Tellerd
from tests.bench.samples import VALUE_MSAT, Sample, SampleDatabase

_WAIT_S: Final = 60.0
"""A round takes 3 to 10 s; one that takes this long is broken."""

_LOOK_S: Final = 0.001
"""Between two looks at the head while one settlement is waited for. With the look itself it is some 1.5 ms, half of
which on average is what is added to the time of a settlement, or to its latency, by finding it committed."""

_FIRST_LOOK: Final = 0.6
"""Part of what the last ones took (their median) that is waited before the first look: a look costs database and
driver some 0.3 ms of CPU, which the commit that is waited for needs. Nothing faster than that can be seen: with 0.9 of
the last one alone each slow settlement made the next ten be found late."""

_LAST_ONES: Final = 9

_LOOK_WIDE_S: Final = {100: 0.005, None: 0.02}
"""Between looks while many are under way, by how many."""

LONG_LEASE: Final = "\n[posting]\nlease_ttl_s = 60.0\n"
"""The daemon keeps the lease while it is paused."""

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Use:
    """CPU seconds per process since it was started."""

    seconds: dict[str, float]

    def since(self, before: Use) -> dict[str, float]:
        """What was used in between."""
        return {name: value - before.seconds[name] for name, value in self.seconds.items()}


class SimulatedLndProcess:
    """`python -m tests.simulated_lnd`: one line in, one line of JSON out."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "tests.simulated_lnd", "--folder", str(folder)]
        command += ["--value-msat", str(VALUE_MSAT)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        self._stdin = self._process.stdin
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._unanswered = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.files = self._answers.get(timeout=_WAIT_S)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(json.loads(line))

    def tell(self, lines: Sequence[str]) -> None:
        """Sends commands; what they are answered is looked at by the next `ask`."""
        self._unanswered += len(lines)
        self._stdin.write("".join(f"{line}\n" for line in lines))
        self._stdin.flush()

    def ask(self, line: str) -> dict[str, Any]:
        """Sends a command behind all that was told, and returns its answer."""
        self.tell([line])
        answer: dict[str, Any] = {}
        for _ in range(self._unanswered):
            answer = self._answers.get(timeout=_WAIT_S)
            if "error" in answer:
                raise RuntimeError(f"the simulated LND says: {answer['error']}")
        self._unanswered = 0
        return answer

    def stop(self) -> None:
        """Ends it: the end of stdin is its order to stop."""
        self._stdin.close()
        self._process.wait(_WAIT_S)
        self._reader.join(_WAIT_S)
        assert self._process.stdout is not None
        self._process.stdout.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One measured round of the path."""

    settlements: int
    seconds: float
    batch: float
    """Settlements in one commit, mean."""
    used: dict[str, float]

    @property
    def per_s(self) -> float:
        """Settlements a second."""
        return self.settlements / self.seconds


class WholePath:
    """A daemon that follows a simulated LND; the node is opened before anything is settled."""

    def __init__(self, mongod: Mongod, folder: Path) -> None:
        self._mongod = mongod
        self.samples = SampleDatabase(MongoStore.connect(mongod.url, "path"))
        self._sequence = 0
        self._last_s: deque[float] = deque([0.0], maxlen=_LAST_ONES)
        with ExitStack() as building:
            building.callback(self.samples.close)
            self.lnd = SimulatedLndProcess(folder)
            building.callback(self.lnd.stop)
            api, metrics = take_port(), take_port()
            config = folder / "tellerd.toml"
            config.write_text(
                TELLERD_TOML.format(
                    mongo_url=mongod.url,
                    database="path",
                    lnd_address=self.lnd.files["address"],
                    tls_cert_file=self.lnd.files["tls_cert_file"],
                    macaroon_file=self.lnd.files["macaroon_file"],
                    api_port=api,
                    http_port=metrics,
                )
                + LONG_LEASE
            )
            self.tellerd = Tellerd(config, api=f"127.0.0.1:{api}", http_address=f"127.0.0.1:{metrics}")
            building.enter_context(self.tellerd)
            self._wait_opened()
            self._resources = building.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def _wait_opened(self) -> None:
        give_up_at = time.monotonic() + _WAIT_S
        while self.samples.db[names.CURSORS].find_one({"opening_index": {"$ne": None}}) is None:
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"the node was not opened\n{self.tellerd.process.log_tail()}")
            time.sleep(0.05)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it the daemon does nothing: its sweeps and its change stream are no part of the ceiling."""
        self.tellerd.process.pause()
        try:
            yield
        finally:
            self.tellerd.process.resume()

    def prepare(self, count: int, currency: Currency = Currency.BTC) -> Sequence[Sample]:
        """Open invoices on the node, with their documents, for wallets of this currency."""
        self.lnd.ask(f"make {count}")
        return self.samples.more(count, currency)

    def sequence(self) -> int:
        """The newest event that is committed, majority and journaled: one for each settlement."""
        # Looked for again and again, and a bare command costs two thirds of what find_one does.
        find = {"find": names.HEAD, "filter": {"_id": "head"}, "readConcern": {"level": "majority"}}
        reply = self.samples.db.command(find)
        return int(reply["cursor"]["firstBatch"][0]["sequence"])

    def settle_one(self, sample: Sample) -> float:
        """Seconds from the order to the simulated LND to the first look that finds it committed."""
        wanted = self._sequence + 1
        began = time.perf_counter()
        self.lnd.tell([f"settle-hash {sample.payment_hash}"])
        time.sleep(_FIRST_LOOK * statistics.median(self._last_s))
        self._wait_sequence(wanted, _LOOK_S)
        self._last_s.append(time.perf_counter() - began)
        return self._last_s[-1]

    def run(self, samples: Sequence[Sample], in_flight: int | None, *, at_most_s: float) -> Round:
        """Settles the samples, never more than `in_flight` at a time (None: all at once), until all are in the
        books; begins no new ones after `at_most_s`."""
        before, batches_before = self.use(), self._batches()
        self._sequence = self.sequence()
        began = time.perf_counter()
        if in_flight == 1:
            sent = self._settle_in_turn(samples, began + at_most_s)
        else:
            sent = self._settle_together(samples, in_flight, began + at_most_s)
        seconds = time.perf_counter() - began
        used = self.use().since(before)
        events, commits = (after - earlier for after, earlier in zip(self._batches(), batches_before, strict=True))
        self.lnd.ask("status")  # its answers so far are read
        return Round(settlements=sent, seconds=seconds, batch=events / commits, used=used)

    def _settle_in_turn(self, samples: Sequence[Sample], give_up_at: float) -> int:
        for sent, sample in enumerate(samples, start=1):
            self.settle_one(sample)
            if time.perf_counter() > give_up_at:
                return sent
        return len(samples)

    def _settle_together(self, samples: Sequence[Sample], in_flight: int | None, give_up_at: float) -> int:
        orders = [f"settle-hash {sample.payment_hash}" for sample in samples]
        start, sent, look_s = self._sequence, 0, _LOOK_WIDE_S[in_flight]
        while sent < len(orders) and time.perf_counter() < give_up_at:
            room = len(orders) if in_flight is None else in_flight - (start + sent - self._sequence)
            self.lnd.tell(orders[sent : sent + room])
            sent += len(orders[sent : sent + room])
            self._wait_sequence(self._sequence + 1, look_s)
        self._wait_sequence(start + sent, look_s)
        return sent

    def _wait_sequence(self, wanted: int, look_s: float) -> None:
        give_up_at = time.monotonic() + _WAIT_S
        while (sequence := self.sequence()) < wanted:
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"sequence {sequence}, not {wanted}\n{self.tellerd.process.log_tail()}")
            time.sleep(look_s)
        self._sequence = sequence

    def _batches(self) -> tuple[float, float]:
        """Events and commits so far, from /metrics."""
        page = self.tellerd.get("/metrics").text
        return metric(page, "tellerd_commit_events_sum"), metric(page, "tellerd_commit_events_count")

    def seen_latency(self) -> tuple[float, float]:
        """What the daemon itself measured from reading a settlement to its commit: seconds in all, and how many."""
        page = self.tellerd.get("/metrics").text
        name = "tellerd_settlement_latency_seconds"
        return metric(page, f"{name}_sum"), metric(page, f"{name}_count")

    def use(self) -> Use:
        """CPU of the three processes so far."""
        pids = {"tellerd": self.tellerd.process.pid, "mongod": self._mongod.process.pid, "simulated LND": self.lnd.pid}
        return Use({name: cpu_s(pid) for name, pid in pids.items()} | {"bench": time.process_time()})


def metric(page: str, name: str) -> float:
    """The value of a metric without labels in Prometheus' text format."""
    found = re.search(rf"^{name} (\S+)$", page, re.MULTILINE)
    if found is None:
        raise http.client.HTTPException(f"/metrics has no {name}")
    return float(found.group(1))


def cpu_s(pid: int) -> float:
    """User and system time of a process, all threads (proc(5): fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
