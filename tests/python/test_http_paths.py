"""What `feast serve` tells strangers of a store that fails: what happened, and no path of the machine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import feast_vector
import numpy as np
import pandas as pd
import pytest
from conftest import held_by_another_process, shop_frame
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.feature_server import get_app
from feast.types import Array, Float32, String
from starlette.testclient import TestClient

WRITE, READ, SEARCH = "/write-to-online-store", "/get-online-features", "/search"


@pytest.fixture
def tmp_path(tmp_path):
    """A folder whose name has an apostrophe, in which the paths of messages seem to end."""
    folder = tmp_path / "the shop's data" / "store"
    folder.mkdir(parents=True)
    return folder


def client_of(store):
    """Feast's feature server, as a client has it; without its start, which opens the store."""
    return TestClient(get_app(store, registry_ttl_sec=0), raise_server_exceptions=False)


def ask(client, path):
    frame = shop_frame().head(2)
    rows = frame.assign(event_timestamp=frame.event_timestamp.astype(str)).to_dict(orient="list")
    features = {"features": ["items:title"]}
    body = {
        WRITE: {"feature_view_name": "items", "df": rows},
        READ: {**features, "entities": {"id": [0, 1]}},
        SEARCH: {**features, "query": [1.0, 2.0], "top_k": 2, "api_version": 2},
    }[path]
    return client.post(path, json=body)


def close(store):
    for engine in store._get_provider().online_store._engines.values():
        engine.close()


def sql(path, *statements):
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
    code += "for s in sys.argv[2:]: c.execute(s)"
    subprocess.run([sys.executable, "-c", code, path, *statements], check=True)


def no_folder(path):
    shutil.rmtree(path.parent)


def a_folder(path):
    remove(path)
    path.mkdir()


def remove(path):
    for file in path.parent.glob(f"{path.name}*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()


def no_database(path):
    remove(path)
    path.write_text("These are notes, not a database. " * 40)


def of_another_program(path):
    remove(path)
    sql(path, "CREATE TABLE notes (text)")


def newer(path):
    sql(path, "PRAGMA user_version = 99")


def damaged(path):
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)


def no_lock(path):
    lock = Path(f"{path}.lock")
    lock.unlink(missing_ok=True)
    lock.mkdir()


@pytest.mark.parametrize(
    ("spoil", "asked", "status", "said"),
    [
        (no_folder, [WRITE], 500, "folder"),
        (a_folder, [WRITE, READ, SEARCH], 500, "is a folder"),
        (no_database, [WRITE, READ, SEARCH], 500, "not a SQLite database"),
        (of_another_program, [WRITE, READ, SEARCH], 500, "of another program"),
        (newer, [WRITE, READ, SEARCH], 500, "format version 99"),
        (damaged, [WRITE, READ, SEARCH], 500, "damaged"),
        (no_lock, [WRITE], 500, "cannot open the lock file 'vector.db.lock'"),
    ],
)
def test_a_file_that_cannot_be_used(shop_store, tmp_path, caplog, spoil, asked, status, said):
    close(shop_store)
    client = client_of(shop_store)
    spoil(tmp_path / "vector.db")
    for path in asked:
        caplog.clear()
        answer = ask(client, path)
        assert (answer.status_code, said in answer.text) == (status, True), answer.text
        for part in (str(tmp_path), "the shop", "/store", os.sep + "tmp", "data/"):
            assert part not in answer.text
        assert str(tmp_path) in caplog.text


def test_a_database_that_is_held_by_another_process(shop_store, tmp_path, caplog):
    shop_store.config.online_store.busy_timeout = 0.1
    with held_by_another_process(tmp_path):
        answer = ask(client_of(shop_store), WRITE)
    assert answer.status_code == 503
    assert "holds the database" in answer.text
    assert "the shop" not in answer.text
    assert str(tmp_path) in caplog.text


FAILING = """
import logging
import os, resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_http_paths import WRITE, ask, client_of
from feast import FeatureStore, RepoConfig

folder, kind = Path(sys.argv[2]), sys.argv[3]
store = FeatureStore(config=RepoConfig(
    project="shop", provider="local", registry=str(folder / "registry.db"),
    online_store={"type": "vector", "path": str(folder / "vector.db"), "text_search_enabled": True},
    entity_key_serialization_version=3, repo_path=folder,
))
store.list_feature_views()
client = client_of(store)
logging.basicConfig(stream=sys.stderr)
if kind == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
elif os.getuid() == 0:
    os.setuid(65534)
answer = ask(client, WRITE)
print(answer.status_code, answer.text)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="permissions and limits are Unix's")
@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_a_disk_that_takes_nothing(shop_store, tmp_path, kind):
    close(shop_store)
    for parent in list(tmp_path.parents)[:5]:
        parent.chmod(parent.stat().st_mode | 0o755)
    if kind == "read-only":
        for file in tmp_path.iterdir():
            file.chmod(0o444)
        tmp_path.chmod(0o555)
    arguments = [str(Path(__file__).parent), str(tmp_path), kind]
    try:
        done = subprocess.run(
            [sys.executable, "-c", FAILING, *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
    finally:
        tmp_path.chmod(0o755)
    status, text = done.stdout.split(maxsplit=1)
    assert status in {"500", "507"}, done.stdout
    said = "not writable" if kind == "read-only" else "SQLite"
    assert said in text
    assert "the shop" not in text
    assert "/vector.db" not in text
    assert str(tmp_path) in done.stderr


def test_an_index_file_that_is_damaged(tmp_path):
    """The search is right without it, and strangers hear nothing of it."""
    store = FeatureStore(
        config=RepoConfig(
            project="shop",
            provider="local",
            registry=str(tmp_path / "registry.db"),
            online_store={"type": "vector", "path": str(tmp_path / "vector.db")},
            entity_key_serialization_version=3,
            repo_path=tmp_path,
        )
    )
    item = Entity(name="item", join_keys=["id"], value_type=ValueType.INT64)
    vectors = Field(name="embedding", dtype=Array(Float32), vector_index=True, vector_length=256)
    source = FileSource(path=str(tmp_path / "items.parquet"), timestamp_field="event_timestamp")
    schema = [Field(name="title", dtype=String), vectors]
    view = FeatureView(name="items", entities=[item], schema=schema, source=source)
    rows = np.random.default_rng(0).standard_normal((3000, 256), dtype=np.float32)
    frame = (
        shop_frame()
        .head(1)[["event_timestamp"]]
        .merge(
            pd.DataFrame({"id": range(3000), "title": "a title", "embedding": list(rows)}),
            how="cross",
        )
    )
    frame.to_parquet(tmp_path / "items.parquet")
    store.apply([item, view])
    items = feast_vector.open_view(store, "items")
    items.write_arrow(frame)
    items.optimize()
    body = {"features": ["items:title"], "query": rows[7].tolist(), "top_k": 3, "api_version": 2}
    client = client_of(store)
    expected = client.post(SEARCH, json=body).json()
    close(store)
    (file,) = Path(f"{tmp_path / 'vector.db'}.index").glob("*.seg")
    file.write_bytes(b"\0" * file.stat().st_size)
    with pytest.warns(RuntimeWarning, match="index") as caught:
        answer = client.post(SEARCH, json=body)
    assert any(str(tmp_path) in str(warning.message) for warning in caught)
    assert answer.status_code == 200
    assert answer.json() == expected
    assert "the shop" not in answer.text
