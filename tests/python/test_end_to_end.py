"""The real thing: the `feast` command, `feast serve` over HTTP, the remote store, every kind of view."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from datetime import datetime, timezone
from pathlib import Path

import httpx
import pandas as pd
import pytest
from feast import FeatureStore, RepoConfig
from feast.data_source import PushMode

REPO = """
from datetime import timedelta
from feast import (Entity, FeatureService, FeatureView, Field, FileSource, PushSource,
                   RequestSource, ValueType)
from feast.labeling.label_view import LabelView
from feast.on_demand_feature_view import on_demand_feature_view
from feast.stream_feature_view import StreamFeatureView
from feast.types import Array, Float32, Float64, Int64, String

item = Entity(name="item", join_keys=["id"], value_type=ValueType.INT64)
source = FileSource(name="items_file", path="items.parquet", timestamp_field="event_timestamp",
                    created_timestamp_column="created")
items = FeatureView(
    name="items", entities=[item], ttl=timedelta(days=3650), source=source,
    schema=[
        Field(name="id", dtype=Int64),
        Field(name="title", dtype=String),
        Field(name="price", dtype=Float64),
        Field(name="tags", dtype=Array(String)),
        Field(name="embedding", dtype=Array(Float32), vector_index=True, vector_length=3,
              vector_search_metric="cosine"),
    ],
)
clicks = FeatureView(
    name="clicks", entities=[item], ttl=timedelta(0),
    source=PushSource(name="clicks_push", batch_source=FileSource(
        name="clicks_file", path="clicks.parquet", timestamp_field="event_timestamp")),
    schema=[Field(name="id", dtype=Int64), Field(name="count", dtype=Int64)],
)
stream = StreamFeatureView(
    name="stream", entities=[item], ttl=timedelta(0),
    source=PushSource(name="stream_push", batch_source=FileSource(
        name="stream_file", path="clicks.parquet", timestamp_field="event_timestamp")),
    schema=[Field(name="id", dtype=Int64), Field(name="count", dtype=Int64)],
)
labels = LabelView(
    name="labels", entities=[item], source=PushSource(name="labels_push", batch_source=FileSource(
        name="labels_file", path="labels.parquet", timestamp_field="event_timestamp")),
    schema=[Field(name="id", dtype=Int64), Field(name="relevant", dtype=Int64),
            Field(name="labeler", dtype=String)],
)
factor = RequestSource(name="factor", schema=[Field(name="factor", dtype=Float64)])

@on_demand_feature_view(sources=[items, factor], mode="python",
                        schema=[Field(name="scaled", dtype=Float64)])
def scaled(inputs):
    return {"scaled": [p * f for p, f in zip(inputs["price"], inputs["factor"])]}

@on_demand_feature_view(sources=[items], entities=[item], mode="python", write_to_online_store=True,
                        schema=[Field(name="doubled", dtype=Float64)])
def doubled(inputs):
    return {"doubled": [p * 2 for p in inputs["price"]]}

service = FeatureService(name="service", features=[items[["title"]], clicks])
"""

YAML = """
project: shop
provider: local
registry: data/registry.db
online_store:
  type: vector
entity_key_serialization_version: 3
"""

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def feast(repo, *arguments, ok=True):
    done = subprocess.run(
        [FEAST, *arguments], cwd=repo, capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) is ok, done.stdout + done.stderr
    return done.stdout + done.stderr


FEAST = Path(sys.executable).with_name("feast")


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    """A feature repo that has been applied and materialized with the `feast` command."""
    repo = tmp_path_factory.mktemp("shop")
    (repo / "feature_store.yaml").write_text(YAML)
    (repo / "definitions.py").write_text(REPO)
    time = pd.Timestamp(START)
    pd.DataFrame(
        {
            "id": range(50),
            "title": [f"t{i}" for i in range(50)],
            "price": [i / 4 for i in range(49)] + [None],
            "tags": [[f"a{i}", "b"] for i in range(50)],
            "embedding": [[float(i), 50.0 - i, 1.0] for i in range(50)],
            "event_timestamp": time,
            "created": time,
        }
    ).to_parquet(repo / "items.parquet")
    for name, column in (("clicks", "count"), ("labels", "relevant")):
        frame = pd.DataFrame({"id": [0], column: [0], "labeler": ["x"], "event_timestamp": time})
        frame.to_parquet(repo / f"{name}.parquet")
    said = feast(repo, "apply")
    assert "Deploying infrastructure for" in said
    said = feast(repo, "materialize", "2025-01-01T00:00:00", "2026-02-01T00:00:00")
    assert "vector" in said
    assert "feast_vector" not in said
    return repo


def test_the_database_is_where_it_belongs_and_typed(repo):
    code = (
        "import sqlite3; c = sqlite3.connect('data/online.db');"
        "print(c.execute('select id, title, price, tags from shop_items where id in (4, 49)').fetchall())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo, capture_output=True, text=True, check=True
    )
    assert (
        done.stdout.strip()
        == """[(4, 't4', 1.0, '["a4","b"]'), (49, 't49', None, '["a49","b"]')]"""
    )


def test_reading_and_searching(repo):
    store = FeatureStore(repo)
    answer = store.get_online_features(
        features=["items:title", "items:price", "items:tags", "scaled:scaled"],
        entity_rows=[{"id": 4, "factor": 10.0}, {"id": 7, "factor": 2.0}],
    ).to_dict()
    assert answer == {
        "id": [4, 7],
        "title": ["t4", "t7"],
        "price": [1.0, 1.75],
        "tags": [["a4", "b"], ["a7", "b"]],
        "scaled": [10.0, 3.5],
    }
    found = store.retrieve_online_documents_v2(
        features=["items:title", "items:price"], query=[20.0, 30.0, 1.0], top_k=3
    ).to_dict()
    assert found["id"] == [20, 21, 19] or found["id"] == [20, 19, 21]
    assert found["title"] == [f"t{i}" for i in found["id"]]
    assert found["price"] == [i / 4 for i in found["id"]]
    assert found["distance"][0] == 0
    missing = store.get_online_features(features=["items:title"], entity_rows=[{"id": 999}])
    assert missing.to_dict() == {"id": [999], "title": [None]}


def test_async_reads(repo):
    store = FeatureStore(repo)

    async def read():
        await store.initialize()
        answer = await store.get_online_features_async(
            features=["items:title", "clicks:count"], entity_rows=[{"id": 1}]
        )
        await store.close()
        return answer.to_dict()

    assert asyncio.run(read())["title"] == ["t1"]


def test_push_label_and_on_demand_views(repo):
    store = FeatureStore(repo)
    now = pd.Timestamp.now(tz="UTC")
    frame = pd.DataFrame({"id": [1, 2], "count": [10, 20], "event_timestamp": now})
    store.push("clicks_push", frame, to=PushMode.ONLINE)
    answer = store.get_online_features(
        features=store.get_feature_service("service"), entity_rows=[{"id": 1}, {"id": 2}, {"id": 3}]
    ).to_dict()
    assert answer == {"id": [1, 2, 3], "title": ["t1", "t2", "t3"], "count": [10, 20, None]}

    # Feast promises that the last label written is the one that counts.
    label = {"id": [1], "relevant": [1], "labeler": ["a"], "event_timestamp": now}
    store.push("labels_push", pd.DataFrame(label), to=PushMode.ONLINE)
    late = {**label, "relevant": [0], "labeler": ["b"], "event_timestamp": now - pd.Timedelta("1h")}
    store.push("labels_push", pd.DataFrame(late), to=PushMode.ONLINE)
    answer = store.get_online_features(
        features=["labels:relevant", "labels:labeler"], entity_rows=[{"id": 1}]
    ).to_dict()
    assert answer == {"id": [1], "relevant": [0], "labeler": ["b"]}

    frame = pd.DataFrame({"id": [5], "price": [3.5], "event_timestamp": now})
    store.write_to_online_store("doubled", frame)
    answer = store.get_online_features(features=["doubled:doubled"], entity_rows=[{"id": 5}])
    assert answer.to_dict() == {"id": [5], "doubled": [7.0]}


def test_stream_views(repo):
    store = FeatureStore(repo)
    frame = pd.DataFrame({"id": [6], "count": [60], "event_timestamp": pd.Timestamp.now(tz="UTC")})
    store.push("stream_push", frame, to=PushMode.ONLINE)
    answer = store.get_online_features(features=["stream:count"], entity_rows=[{"id": 6}])
    assert answer.to_dict() == {"id": [6], "count": [60]}


def test_async_writes(repo):
    store = FeatureStore(repo)
    frame = pd.DataFrame({"id": [9], "count": [90], "event_timestamp": pd.Timestamp.now(tz="UTC")})
    asyncio.run(store.write_to_online_store_async("clicks", frame))
    answer = store.get_online_features(features=["clicks:count"], entity_rows=[{"id": 9}])
    assert answer.to_dict()["count"] == [90]


def test_a_wrong_config_key_on_the_command_line(tmp_path):
    (tmp_path / "feature_store.yaml").write_text(YAML.replace("vector", "vector\n  pth: x"))
    (tmp_path / "definitions.py").write_text("")
    said = feast(tmp_path, "apply", ok=False)
    assert re.search(r"pth\s+Extra inputs are not permitted", said)


# --- over HTTP


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(repo):
    """`feast serve` with two forked workers; its address."""
    port = free_port()
    log = repo / "serve.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [FEAST, "serve", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"],
            cwd=repo,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                httpx.get(f"{address}/health", timeout=1).raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def post(server, path, body):
    answer = httpx.post(f"{server}{path}", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json() if answer.content else None


def columns(answer):
    names = answer["metadata"]["feature_names"]
    return {name: result["values"] for name, result in zip(names, answer["results"], strict=True)}


def test_serving_reads_from_every_worker(server):
    for _ in range(20):
        body = {"features": ["items:title", "items:price"], "entities": {"id": [4, 999]}}
        found = columns(post(server, "/get-online-features", body))
        assert found == {"id": [4, 999], "title": ["t4", None], "price": [1.0, None]}


def test_serving_searches(server):
    body = {
        "features": ["items:title", "items:price"],
        "query": [20.0, 30.0, 1.0],
        "top_k": 4,
        "api_version": 2,
    }
    for _ in range(6):
        found = columns(post(server, "/retrieve-online-documents", body))
        assert found["title"] == [f"t{i}" for i in found["id"]]
        assert found["price"] == [i / 4 for i in found["id"]]
        assert found["id"][0] == 20
        assert found["distance"] == sorted(found["distance"])


def test_a_push_to_one_worker_is_seen_by_both(server):
    for count in range(1, 15):
        body = {
            "push_source_name": "clicks_push",
            "df": {
                "id": [30],
                "count": [count],
                "event_timestamp": [f"2026-05-01T00:00:{count:02d}+00:00"],
            },
            "to": "online",
        }
        post(server, "/push", body)
        read = {"features": ["clicks:count"], "entities": {"id": [30]}}
        for _ in range(4):
            assert columns(post(server, "/get-online-features", read))["count"] == [count]


def test_a_materialize_beside_the_server_is_seen(server, repo):
    search = {"features": ["items:title"], "query": [1.0, 1.0, 90.0], "top_k": 1, "api_version": 2}
    assert columns(post(server, "/retrieve-online-documents", search))["title"] != ["new"]
    frame = pd.read_parquet(repo / "items.parquet")
    row = frame.iloc[[0]].assign(
        id=777, title="new", event_timestamp=pd.Timestamp("2026-01-02", tz="UTC")
    )
    row["embedding"] = [[1.0, 1.0, 90.0]]
    pd.concat([frame, row]).to_parquet(repo / "items.parquet")
    feast(repo, "materialize", "2026-01-01T12:00:00", "2026-02-01T00:00:00", "--views", "items")
    for _ in range(6):
        assert columns(post(server, "/retrieve-online-documents", search))["title"] == ["new"]


def test_the_remote_store_in_front_of_ours(server, repo, tmp_path):
    config = RepoConfig(
        project="shop",
        provider="local",
        registry=str(repo / "data" / "registry.db"),
        online_store={"type": "remote", "path": server},
        entity_key_serialization_version=3,
        repo_path=tmp_path,
    )
    store = FeatureStore(config=config)
    answer = store.get_online_features(
        features=["items:title", "items:tags"], entity_rows=[{"id": 4}, {"id": 8}]
    ).to_dict()
    assert answer == {"id": [4, 8], "title": ["t4", "t8"], "tags": [["a4", "b"], ["a8", "b"]]}
    frame = pd.DataFrame(
        {"id": [31], "count": [310], "event_timestamp": pd.Timestamp.now(tz="UTC")}
    )
    store.write_to_online_store("clicks", frame)
    answer = store.get_online_features(features=["clicks:count"], entity_rows=[{"id": 31}])
    assert answer.to_dict()["count"] == [310]


def test_teardown(tmp_path):
    (tmp_path / "feature_store.yaml").write_text(YAML)
    (tmp_path / "definitions.py").write_text(textwrap.dedent(REPO))
    frame = pd.DataFrame({"id": [1], "count": [1], "event_timestamp": [pd.Timestamp(START)]})
    columns_of_items = {
        "title": ["t"],
        "price": [1.0],
        "tags": [["a"]],
        "embedding": [[1.0, 2.0, 3.0]],
        "created": pd.Timestamp(START),
    }
    frame.assign(**columns_of_items).to_parquet(tmp_path / "items.parquet")
    frame.to_parquet(tmp_path / "clicks.parquet")
    frame.assign(relevant=1, labeler="a").to_parquet(tmp_path / "labels.parquet")
    feast(tmp_path, "apply")
    feast(tmp_path, "teardown")
    code = (
        "import sqlite3; c = sqlite3.connect('data/online.db');"
        "print(c.execute(\"select name from sqlite_schema where name like 'shop%'\").fetchall())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
