"""Feast's own ways to retrieve, over our store: HTTP, OpenAI's API, remote, FeastVectorStore, MCP."""

import asyncio
import math
import socket
import threading
import time
import types

import httpx
import numpy as np
import pandas as pd
import pytest
import uvicorn
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.feature_server import get_app
from feast.filter_models import ComparisonFilter, CompoundFilter
from feast.types import Array, Float32, Int64, String
from feast.vector_store import FeastVectorStore

METRICS = {"cosine": "cosine", "l2": "L2", "dots": "inner_product"}
WORDS = ["red", "green", "blue"]
ROWS = 30


def point(i):
    return [math.cos(i / 5) * (i + 1), math.sin(i / 5) * (i + 1)]


def distance(metric, query, i):
    a, b = np.array(query), np.array(point(i))
    if metric == "L2":
        return float(np.linalg.norm(a - b))
    if metric == "inner_product":
        return float(-a @ b)
    return float(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def ranked(metric, query, ids=range(ROWS)):
    return sorted(ids, key=lambda i: distance(metric, query, i))


class Embedder:
    """The query's own numbers, in place of a language model."""

    def embed(self, texts):
        return [[float(word) for word in text.split()] for text in texts]

    async def aembed(self, texts):
        return self.embed(texts)


def definitions(folder):
    item = Entity(name="item", join_keys=["id"], value_type=ValueType.INT64)
    source = FileSource(path=str(folder / "items.parquet"), timestamp_field="event_timestamp")
    return item, [
        FeatureView(
            name=name,
            entities=[item],
            schema=[
                Field(name="title", dtype=String),
                Field(name="number", dtype=Int64),
                Field(
                    name="embedding",
                    dtype=Array(Float32),
                    vector_index=True,
                    vector_length=2,
                    vector_search_metric=metric,
                ),
            ],
            source=source,
        )
        for name, metric in METRICS.items()
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A feature repo with a view for each metric, filled."""
    folder = tmp_path_factory.mktemp("surfaces")
    (folder / "feature_store.yaml").write_text(
        "project: shop\nprovider: local\nregistry: registry.db\n"
        "entity_key_serialization_version: 3\n"
        "online_store:\n  type: vector\n  path: online.db\n  text_search_enabled: true\n"
    )
    frame = pd.DataFrame(
        {
            "id": range(ROWS),
            "title": [f"title {i} {WORDS[i % 3]}" for i in range(ROWS)],
            "number": [i % 4 for i in range(ROWS)],
            "embedding": [point(i) for i in range(ROWS)],
            "event_timestamp": pd.Timestamp("2026-01-01", tz="UTC"),
        }
    )
    frame.to_parquet(folder / "items.parquet")
    store = FeatureStore(folder)
    item, views = definitions(folder)
    store.apply([item, *views])
    for view in views:
        store.write_to_online_store(view.name, frame)
    return folder


@pytest.fixture(scope="module")
def store(folder):
    """A feature store that can embed queries."""
    return FeatureStore(folder, embedding_provider=Embedder())


@pytest.fixture(scope="module")
def server(store):
    """Feast's feature server on the loopback interface; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = get_app(store, registry_ttl_sec=0)
    running = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    running.should_exit = True
    thread.join(timeout=30)


def post(server, path, body, status=200):
    answer = httpx.post(f"{server}{path}", json=body, timeout=30)
    assert answer.status_code == status, answer.text
    return answer.json()


def columns(answer):
    names = answer["metadata"]["feature_names"]
    return {name: result["values"] for name, result in zip(names, answer["results"], strict=True)}


NUMBER = {"type": "eq", "key": "number", "value": 3}
NESTED = {
    "type": "and",
    "filters": [
        {"type": "or", "filters": [NUMBER, {"type": "in", "key": "number", "value": [0]}]},
        {"type": "gte", "key": "id", "value": 8},
        {"type": "lt", "key": "event_timestamp", "value": "2026-02-01"},
    ],
}
FILTERED = {
    None: list(range(ROWS)),
    "number": [i for i in range(ROWS) if i % 4 == 3],
    "nested": [i for i in range(8, ROWS) if i % 4 in (0, 3)],
}


# --- HTTP


@pytest.mark.parametrize("path", ["/search", "/retrieve-online-documents"])
@pytest.mark.parametrize("view", METRICS)
@pytest.mark.parametrize(
    ("which", "filters"), [(None, None), ("number", NUMBER), ("nested", NESTED)]
)
def test_search_over_http(server, path, view, which, filters):
    query = [3.0, 1.5]
    body = {
        "features": [f"{view}:title", f"{view}:number"],
        "query": query,
        "top_k": 6,
        "api_version": 2,
        "filters": filters,
    }
    found = columns(post(server, path, body))
    ids = ranked(METRICS[view], query, FILTERED[which])[:6]
    assert found["id"] == ids
    assert found["title"] == [f"title {i} {WORDS[i % 3]}" for i in ids]
    assert found["number"] == [i % 4 for i in ids]
    assert found["distance"] == pytest.approx(
        [distance(METRICS[view], query, i) for i in ids], abs=1e-5
    )


def test_text_and_hybrid_over_http(server):
    body = {"features": ["l2:title"], "query_string": "green", "top_k": 4, "api_version": 2}
    found = columns(post(server, "/search", body))
    assert found["title"] == [f"title {i} green" for i in found["id"]]
    assert len(found["id"]) == 4
    assert found["distance"] == [None] * 4
    assert min(found["text_rank"]) > 0

    body = {**body, "query": [3.0, 1.5], "filters": NUMBER}
    found = columns(post(server, "/search", body))
    assert set(found["id"]) <= set(FILTERED["number"])
    assert found["distance"] == pytest.approx(
        [distance("L2", [3.0, 1.5], i) for i in found["id"]], abs=1e-5
    )
    assert [rank > 0 for rank in found["text_rank"]] == [i % 3 == 1 for i in found["id"]]
    # In both rankings, and so before those that are in one.
    assert found["id"][0] % 3 == 1


def test_first_generation_over_http(server):
    body = {"features": ["l2:embedding"], "query": [3.0, 1.5], "top_k": 2}
    found = columns(post(server, "/retrieve-online-documents", body))
    expected = [point(i) for i in ranked("L2", [3.0, 1.5])[:2]]
    assert [pytest.approx(vector, rel=1e-5) for vector in found["embedding"]] == expected


def test_reads_over_http(server):
    body = {"features": ["l2:title"], "entities": {"id": [3, 99]}}
    assert columns(post(server, "/get-online-features", body)) == {
        "id": [3, 99],
        "title": ["title 3 red", None],
    }


def test_wrong_requests_over_http(server):
    body = {"features": ["l2:title"], "query": [1.0, 2.0], "top_k": 2, "api_version": 2}
    wrong = {"type": "eq", "key": "prise", "value": 1}
    answer = post(server, "/search", {**body, "filters": wrong}, status=404)
    assert "has nothing named 'prise' to filter on; it has: id" in str(answer)
    answer = post(server, "/search", {**body, "query": [1.0]}, status=422)
    assert "the query vector has 1 values, but the feature declares vector_length=2" in str(answer)


# --- OpenAI's API


@pytest.mark.parametrize("view", METRICS)
@pytest.mark.parametrize(
    ("which", "filters"), [(None, None), ("number", NUMBER), ("nested", NESTED)]
)
def test_openai_search_over_http(server, view, which, filters):
    listed = httpx.get(f"{server}/v1/vector_stores").json()["data"]
    stores = {entry["name"]: entry["id"] for entry in listed}
    assert set(stores) == set(METRICS)
    assert httpx.get(f"{server}/v1/vector_stores/{stores[view]}").json()["name"] == view
    body = {"query": "3.0 1.5", "max_num_results": 7, "filters": filters}
    found = post(server, f"/v1/vector_stores/{stores[view]}/search", body)
    data = found["data"]
    ids = ranked(METRICS[view], [3.0, 1.5], FILTERED[which])[:7]
    assert [row["file_id"] for row in data] == [f"{stores[view]}_{i}" for i in ids]
    assert [row["attributes"]["title"] for row in data] == [
        f"title {i} {WORDS[i % 3]}" for i in ids
    ]
    assert [row["content"][0]["text"] for row in data] == [f"title {i} {WORDS[i % 3]}" for i in ids]
    scores = [row["score"] for row in data]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) > 1


def test_openai_errors(server):
    listed = httpx.get(f"{server}/v1/vector_stores").json()["data"]
    wrong = {"type": "gt", "key": "prise", "value": 1}
    body = {"query": "1 2", "filters": wrong}
    answer = post(server, f"/v1/vector_stores/{listed[0]['id']}/search", body, status=422)
    assert "nothing named 'prise'" in answer["error"]["message"]
    assert post(server, "/v1/vector_stores/vs_none/search", body, status=404)["error"]


def test_openai_search_in_process(store):
    found = asyncio.run(
        store.openai_search(
            "cosine",
            ["3.0", "1.5"],
            max_num_results=3,
            filters=ComparisonFilter(type="ne", key="number", value=0),
            features_to_retrieve=["number"],
        )
    )
    ids = ranked("cosine", [3.0, 1.5], [i for i in range(ROWS) if i % 4])[:3]
    assert [row["attributes"] for row in found["data"]] == [{"number": i % 4} for i in ids]


# --- the remote store


@pytest.fixture(scope="module")
def remote(server, folder, tmp_path_factory):
    """A feature store whose online store is Feast's remote one, in front of the server."""
    return FeatureStore(
        config=RepoConfig(
            project="shop",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store={"type": "remote", "path": server},
            entity_key_serialization_version=3,
            repo_path=tmp_path_factory.mktemp("remote"),
        )
    )


@pytest.mark.parametrize("words", [None, "green"])
@pytest.mark.parametrize("query", [None, [3.0, 1.5]])
@pytest.mark.parametrize("filtered", [False, True])
def test_the_remote_store(store, remote, words, query, filtered):
    if query is None and words is None:
        return
    filters = None
    if filtered:
        filters = CompoundFilter(
            type="or",
            filters=[
                ComparisonFilter(type="eq", key="number", value=3),
                CompoundFilter(
                    type="and", filters=[ComparisonFilter(type="in", key="id", value=[1, 4])]
                ),
            ],
        )

    def number(value):
        # A float of ours is a double after its way through JSON.
        return value.float_val or value.double_val

    def ask(feature_store):
        view = feature_store.get_feature_view("l2")
        rows = feature_store._get_provider().retrieve_online_documents_v2(
            feature_store.config, view, ["title", "number"], query, 6, "L2", words, filters
        )
        return [
            (
                entity.entity_values[0].int64_val,
                row["title"].string_val,
                row["number"].int64_val,
                pytest.approx(number(row["distance"]), rel=1e-5) if query else None,
            )
            for _, entity, row in rows
        ]

    found = ask(remote)
    assert found == ask(store)
    assert len(found) == 6 or filtered


# --- FeatureStore


def test_searches_that_find_nothing_give_empty_columns(store):
    nothing = ComparisonFilter(type="eq", key="number", value=99)
    for query, words, filters in (
        (None, "zzz", None),
        (None, "green", nothing),
        ([1.0, 2.0], None, nothing),
        ([1.0, 2.0], "green", nothing),
    ):
        found = store.retrieve_online_documents_v2(
            features=["l2:title"], query=query, query_string=words, filters=filters, top_k=3
        ).to_dict()
        expected = ["title", "distance", *(["text_rank"] if words else [])]
        assert found == {name: [] for name in expected}


def test_configuration_may_change_while_the_store_is_in_use(folder):
    """Feast's own tests do this."""
    other = FeatureStore(folder)
    other.config.online_store.text_search_enabled = False
    ask = {"features": ["l2:title"], "query_string": "green", "top_k": 2}
    with pytest.raises(ValueError, match="text search is off"):
        other.retrieve_online_documents_v2(**ask)
    other.config.online_store.text_search_enabled = True
    assert len(other.retrieve_online_documents_v2(**ask).to_dict()["title"]) == 2


# --- FeastVectorStore, and the retriever on top of it


def test_feast_vector_store(folder):
    _, views = definitions(folder)
    view = next(view for view in views if view.name == "l2")
    documents = FeastVectorStore(str(folder), view, ["l2:title", "l2:number", "l2:embedding"])
    query = np.array([3.0, 1.5])
    found = documents.query(query_vector=query, top_k=5).to_dict()
    assert found["id"] == ranked("L2", [3.0, 1.5])[:5]
    found = documents.query(query_string="title-7 red?", top_k=1).to_dict()
    assert found["title"] == ["title 7 green"]
    found = documents.query(query_vector=query, query_string="blue", top_k=5).to_dict()
    assert found["title"][0].endswith("blue")
    assert found["distance"] == pytest.approx(
        [distance("L2", query, i) for i in found["id"]], abs=1e-5
    )


def test_rag_retriever(folder, monkeypatch):
    """Feast's retriever for Hugging Face's RAG models, with stand-ins for the models."""
    monkeypatch.setattr(
        "feast.torch_wrapper.get_torch",
        lambda: types.SimpleNamespace(
            device=lambda name: name, cuda=types.SimpleNamespace(is_available=lambda: False)
        ),
    )
    from feast.rag_retriever import FeastIndex, FeastRAGRetriever

    monkeypatch.setattr(
        "feast.rag_retriever.RagRetriever.__init__",
        lambda self, config, **_: setattr(self, "config", config),
    )
    model = types.SimpleNamespace(to=lambda _: model)
    _, views = definitions(folder)
    view = next(view for view in views if view.name == "cosine")
    for search_type, query in (("vector", None), ("text", "title 7"), ("hybrid", "title 7")):
        retriever = FeastRAGRetriever(
            None,
            model,
            None,
            model,
            feast_repo_path=str(folder),
            feature_view=view,
            features=["cosine:title", "cosine:number", "cosine:embedding"],
            search_type=search_type,
            config=types.SimpleNamespace(retrieval_vector_size=2),
            index=FeastIndex(),
            id_field="id",
            text_field="title",
        )
        hidden = np.array([point(7)], dtype=np.float32)
        embeddings, ids, documents = retriever.retrieve(hidden, n_docs=2, query=query)
        assert ids[0][0] == 7
        assert documents[0]["text"][0] == "title 7 green"
        assert embeddings[0][0] == pytest.approx(point(7), rel=1e-5)


# --- MCP


def test_mcp_server(store):
    """Feast's server as tools of the Model Context Protocol, over a client's own session."""
    from feast.infra.mcp_servers.mcp_config import McpFeatureServerConfig
    from feast.infra.mcp_servers.mcp_server import add_mcp_support_to_app
    from mcp.shared.memory import create_connected_server_and_client_session

    app = get_app(store, registry_ttl_sec=0)
    config = McpFeatureServerConfig(mcp_enabled=True, mcp_transport="http")
    mcp = add_mcp_support_to_app(app, store, config)

    async def call():
        async with create_connected_server_and_client_session(mcp.server) as session:
            tools = {tool.name for tool in (await session.list_tools()).tools}
            tool = next(name for name in tools if "search_search" in name)
            answer = await session.call_tool(
                tool,
                {
                    "features": ["l2:title"],
                    "query": [3.0, 1.5],
                    "top_k": 3,
                    "api_version": 2,
                    "filters": NUMBER,
                },
            )
            return answer.content[0].text

    import json

    found = columns(json.loads(asyncio.run(call())))
    assert found["id"] == ranked("L2", [3.0, 1.5], FILTERED["number"])[:3]
