"""Feast's online stores that can be had on this machine, for benchmarks that ask them all the same.

Redis and Postgres are started where their programs are installed; Milvus is its embedded form.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from feast import Entity, FeatureStore, RepoConfig, ValueType
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
SCALARS = [f"f{i}" for i in range(10)]
ITEM = Entity(name="item", join_keys=["id"], value_type=ValueType.INT64)
REDIS_PORT = 6399
POSTGRES_PORT = 5499


class NothingOnlineStoreConfig(FeastConfigBaseModel):
    """Nothing to configure."""

    type: str = "stores.NothingOnlineStore"


class NothingOnlineStore(OnlineStore):
    """Forgets what is written, and answers without looking, by Feast's own way."""

    _row = (NOW, {name: Value(double_val=1.5) for name in SCALARS})

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Everything."""
        return SupportedAsyncMethods(read=True, write=True)

    def online_write_batch(self, config, table, data, progress):
        """Do nothing."""

    def online_read(self, config, table, entity_keys, requested_features=None):  # noqa: ARG002
        """Give the same row for every key."""
        return [self._row] * len(entity_keys)

    async def online_read_async(self, config, table, entity_keys, requested_features=None):
        """Give the same row for every key."""
        return self.online_read(config, table, entity_keys, requested_features)

    def update(self, *_, **__):
        """Do nothing."""

    def teardown(self, *_, **__):
        """Do nothing."""

    async def initialize(self, config):
        """Do nothing."""

    async def close(self):
        """Do nothing."""


def installed() -> list[str]:
    """The kinds of stores that can be asked here, beside one that does nothing and ours."""
    kinds = ["sqlite"]
    if shutil.which("redis-server") and importlib.util.find_spec("redis"):
        kinds.append("redis")
    if _postgres_programs() and importlib.util.find_spec("psycopg"):
        kinds.append("postgres")
    if importlib.util.find_spec("milvus_lite"):
        kinds.append("milvus")
    return kinds


def online_config(kind: str, folder: Path) -> dict[str, Any]:
    """The `online_store` section."""
    if kind == "redis":
        return {"type": "redis", "connection_string": f"localhost:{REDIS_PORT}"}
    if kind == "postgres":
        where = {"host": "localhost", "port": POSTGRES_PORT, "database": "postgres"}
        return {"type": "postgres", **where, "user": "bench", "password": "-", "sslmode": "disable"}
    if kind == "milvus":
        return {"type": "milvus", "path": str(folder / "milvus.db"), "embedding_dim": 384}
    if kind == "nothing":
        return {"type": "stores.NothingOnlineStore"}
    config = {"type": kind, "path": str(folder / "online.db")}
    if kind == "vector":
        # Vectors are indexed afterwards, in the background; here it would take the others' time.
        config["index_builds"] = "on_demand"
    return config


def feature_store(
    folder: Path, kind: str, views: list[Any], engine: str = "local", **online: object
) -> FeatureStore:
    """A feature store in the folder, with the views applied."""
    folder.mkdir(exist_ok=True)
    config = RepoConfig(
        project="bench",
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={**online_config(kind, folder), **online},
        batch_engine=engine,
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    store.apply([ITEM, *views])
    return store


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[list[str]]:
    """Start what has to be started; the kinds of stores that can be asked meanwhile."""
    with contextlib.ExitStack() as stack:
        kinds = installed()
        if "redis" in kinds:
            stack.enter_context(_redis())
        if "postgres" in kinds:
            stack.enter_context(_postgres(folder / "server"))
        yield kinds


@contextlib.contextmanager
def _redis() -> Iterator[None]:
    """Redis in memory alone, without persistence."""
    command = ["redis-server", "--port", str(REDIS_PORT), "--save", "", "--appendonly", "no"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:  # noqa: S603
        try:
            _wait_for(REDIS_PORT)
            yield
        finally:
            server.terminate()


@contextlib.contextmanager
def _postgres(folder: Path) -> Iterator[None]:
    """Postgres as it comes: every transaction is synced to the disk."""
    folder.mkdir()
    # Postgres refuses to run as root.
    as_user = []
    if os.geteuid() == 0:
        as_user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")
        for above in folder.parents:
            if above.stat().st_uid == 0 and str(above).startswith("/tmp/"):  # noqa: S108
                above.chmod(0o755)
    programs = _postgres_programs()
    initdb = [*as_user, f"{programs}/initdb", "-D", folder, "-A", "trust", "-U", "bench"]
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    control = [*as_user, f"{programs}/pg_ctl", "-D", folder, "-l", folder / "log", "-w"]
    options = f"-p {POSTGRES_PORT} -k {folder}"
    start, stop = [*control, "-o", options, "start"], [*control, "-m", "immediate", "stop"]
    subprocess.run(start, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    try:
        yield
    finally:
        subprocess.run(stop, check=True, stdout=subprocess.DEVNULL)  # noqa: S603


def _postgres_programs() -> str | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    beside = shutil.which("pg_ctl")
    return str(found[-1].parent) if found else beside and str(Path(beside).parent)


def _wait_for(port: int) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port)):
            return
        time.sleep(0.1)
