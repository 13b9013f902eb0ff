"""A mongod: a replica set of one node, which is the smallest that has transactions and change streams."""

from pathlib import Path
from typing import Final

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from regtest.process import Node, NodeError, NodeProcess, take_port

CONFIGURATION: Final = Path(__file__).with_name("conf") / "mongod.conf"
REPLICA_SET: Final = "rs0"
ALREADY_INITIALIZED: Final = 23  # MongoDB's error code

READY_S: Final = 180.0
"""2 s when idle; recovery after SIGKILL and a disk that others use were seen to take a minute: a bound against
hanging."""

PROBE_MS: Final = 1_000
"""One readiness probe: a mongod that is up answers in milliseconds."""


def forgetting_soon(*, snapshots_s: int) -> tuple[str, ...]:
    """Flags for a mongod on which many databases are made and dropped; a snapshot may be read for `snapshots_s`.

    A database is some 150 files, which mongod by default keeps open for ten minutes after it was dropped: 150 tests
    came to 14,500 descriptors, and a mongod that may open no more of them ends.
    """
    return (
        "--syncdelay=10",
        f"--setParameter=minSnapshotHistoryWindowInSeconds={snapshots_s}",
        "--setParameter=wiredTigerFileHandleCloseIdleTime=2",
        "--setParameter=wiredTigerFileHandleCloseScanInterval=1",
        "--setParameter=wiredTigerFileHandleCloseMinimum=500",
    )


class Mongod(Node):
    """One mongod, a replica set of one. What it acknowledged with j:true is there again after kill()."""

    def __init__(self, command: tuple[str, ...], folder: Path, extra_flags: tuple[str, ...] = ()) -> None:
        """`command` is the program (regtest.binaries.mongod()); data and log go into `folder`."""
        self.folder = folder
        self.data_folder = folder / "data"
        self.port = take_port()
        flags = (
            f"--config={CONFIGURATION}",
            "--bind_ip=127.0.0.1",
            f"--port={self.port}",
            f"--dbpath={self.data_folder}",
            *extra_flags,
        )
        self.process = NodeProcess("mongod", (*command, *flags), folder / "mongod.log")

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """What a driver connects to."""
        return f"mongodb://{self.address}/?replicaSet={REPLICA_SET}"

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        """Return when it is a writable primary; makes the replica set at the first start. NodeError if not in time."""
        self.process.wait_until(self._is_primary, "a writable primary", timeout_s)

    def _is_primary(self) -> bool:
        """One probe; NodeError says why not yet."""
        client: MongoClient[dict[str, object]] = MongoClient(
            self.address,
            directConnection=True,
            serverSelectionTimeoutMS=PROBE_MS,
            connectTimeoutMS=PROBE_MS,
            socketTimeoutMS=10 * PROBE_MS,  # replSetInitiate writes and syncs
        )
        try:
            hello = client.admin.command("hello")
            if hello.get("isreplicaset"):
                self._initiate(client)
            return bool(hello.get("isWritablePrimary"))
        except PyMongoError as not_yet:
            raise NodeError(str(not_yet)) from not_yet
        finally:
            client.close()

    def _initiate(self, client: MongoClient[dict[str, object]]) -> None:
        members = [{"_id": 0, "host": self.address}]
        try:
            client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
        except OperationFailure as failure:
            if failure.code != ALREADY_INITIALIZED:  # read from disk, on its way to primary
                raise
