"""What the tests share: feature repos in temporary folders, keys, values and views."""

import ast
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import feast_vector
import pandas as pd
import pytest
from feast import (
    Entity,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    RepoConfig,
    ValueType,
)
from feast.infra.online_stores.helpers import get_online_store_from_config
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import FloatList, Value
from feast.types import Array, Float32, Float64, Int64, String

# `make dev` builds without full optimization. What tests read of the processes that they start is
# not to have the warning of that; `pyproject.toml` leaves it out here.
_DEBUG_BUILD = "ignore:feast_vector was built without optimi:RuntimeWarning"
os.environ["PYTHONWARNINGS"] = ",".join(
    filter(None, (os.environ.get("PYTHONWARNINGS"), _DEBUG_BUILD))
)

# Started in the background of a shell, Python leaves Ctrl-C ignored, and tests wait for it for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def at(minutes):
    """An event time, in minutes from noon."""
    return NOON + timedelta(minutes=minutes)


def key(**parts):
    """An entity key; numbers are int64."""
    values = [
        part
        if isinstance(part, Value)
        else Value(string_val=part)
        if isinstance(part, str)
        else Value(int64_val=part)
        for part in parts.values()
    ]
    return EntityKey(join_keys=list(parts), entity_values=values)


def vector(*numbers):
    """A float32 vector."""
    return Value(float_list_val=FloatList(val=numbers))


def integer(number):
    """An int64."""
    return Value(int64_val=number)


def text(string):
    """A string."""
    return Value(string_val=string)


def make_view(name="items", fields=None, entity=True, join_key="id", key_type=ValueType.INT64):
    """A feature view as `feast apply` would have inferred it."""
    item = Entity(name="item", join_keys=[join_key], value_type=key_type)
    fields = [
        Field(name=field, dtype=dtype) if not isinstance(field, Field) else field
        for field, dtype in (fields or {"name": String, "number": Int64}).items()
    ]
    view = FeatureView(
        name=name,
        entities=[item] if entity else [],
        schema=fields,
        source=FileSource(path="nowhere.parquet", timestamp_field="event_timestamp"),
    )
    if entity:
        dtype = String if key_type == ValueType.STRING else Int64
        view.entity_columns = [Field(name=join_key, dtype=dtype)]
    view.features = fields
    return view


def vector_view(name="items", length=2, metric=None, dtype=None):
    """A view with a title and a vector field."""
    view = make_view(name, {"title": String})
    view.features.append(
        Field(
            name="embedding",
            dtype=dtype or Array(Float32),
            vector_index=True,
            vector_length=length,
            vector_search_metric=metric,
        )
    )
    return view


class Harness(SimpleNamespace):
    """A store with its configuration: `store`, `config`, and the calls that tests make most."""

    def write(self, view, *rows, progress=None):
        """Write rows of (key, values, time[, created])."""
        data = [(*row, None)[:4] for row in rows]
        self.store.online_write_batch(self.config, view, data, progress)

    def read(self, view, *keys, features=None):
        """Read rows by key."""
        return self.store.online_read(self.config, view, list(keys), features)

    def update(self, keep=(), delete=()):
        """Do what `feast apply` does to the store."""
        self.store.update(self.config, list(delete), list(keep), [], [], partial=False)

    def find(self, view, query=None, text=None, filters=None, top_k=10, features=(), metric="L2"):
        """Search by vector or text: (entity key, features) of each row, best first."""
        found = self.store.retrieve_online_documents_v2(
            self.config, view, list(features), query, top_k, metric, text, filters
        )
        return [(entity_key, values) for _, entity_key, values in found]

    def find_ids(self, view, query=None, text=None, filters=None, top_k=10):
        """Search as `find` does: the ids alone."""
        return [
            entity_key.entity_values[0].int64_val
            for entity_key, _ in self.find(view, query, text, filters, top_k)
        ]

    def search(self, view, query, top_k=10, features=("title",), metric="L2"):
        """Search by vector: (id, title, distance) of each row, best first."""
        found = self.store.retrieve_online_documents_v2(
            self.config, view, list(features), query, top_k, metric
        )
        return [
            (
                entity_key.entity_values[0].int64_val,
                values["title"].string_val,
                round(values["distance"].float_val, 5),
            )
            for _, entity_key, values in found
        ]


def make_harness(folder, project="shop", kind="vector", **online):
    """A store over a database in the folder."""
    folder.mkdir(exist_ok=True)
    config = RepoConfig(
        project=project,
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={"type": kind, "path": str(folder / f"{kind}.db"), **online},
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    store = get_online_store_from_config(config.online_store)
    if kind == "sqlite":
        feasts_own.append(store)
    return Harness(store=store, config=config)


feasts_own = []


@pytest.fixture(autouse=True)
def closefeasts_own():
    """Close the connections that Feast's sqlite store leaves open."""
    yield
    while feasts_own:
        connection = feasts_own.pop()._conn
        if connection is not None:
            connection.close()


def in_another_process(folder, code, **options):
    """Start Python code that has this module's names, and a harness over the folder."""
    script = (
        f"import sys, time; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\nfrom conftest import *\n"
        f"harness = make_harness(Path({str(folder)!r}), **{options!r})\n{code}"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@contextmanager
def held_by_another_process(folder):
    """Hold the write lock of the harness over the folder, in another process."""
    code = """
import sqlite3
connection = sqlite3.connect(harness.config.online_store.path, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(60)
"""
    with in_another_process(folder, code) as holder:
        assert holder.stdout.readline() == "held\n"
        yield holder
        holder.kill()


def sql_elsewhere(harness, sql):
    """Run SQL in another process, as a stranger's tool would, and give the rows.

    In this process a second SQLite would drop the store's POSIX locks.
    """
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
        "print(c.execute(sys.argv[2]).fetchall()); c.commit()"
    )
    path = harness.config.online_store.path
    done = subprocess.run(
        [sys.executable, "-c", code, path, sql], capture_output=True, text=True, check=True
    )
    return ast.literal_eval(done.stdout)


@pytest.fixture
def harness(tmp_path):
    """A store over a fresh database."""
    return make_harness(tmp_path)


# --- a feature store with two views of the same rows

SHOP_ROWS = 40
SHOP_TIME = datetime.now(timezone.utc).replace(microsecond=0)


def shop_point(i):
    """The vector of an item."""
    return [float(i * 7 % 31), float(i % 5)]


def shop_frame():
    """The items' rows."""
    return pd.DataFrame(
        {
            "id": range(SHOP_ROWS),
            "shop": [f"s{i % 3}" for i in range(SHOP_ROWS)],
            "title": [f"item {i} {'red' if i % 2 else 'blue'}" for i in range(SHOP_ROWS)],
            "price": [i / 4 for i in range(SHOP_ROWS)],
            "stock": pd.array([None if i == 3 else i for i in range(SHOP_ROWS)], dtype="Int64"),
            "tags": [[f"t{i % 4}"] for i in range(SHOP_ROWS)],
            "embedding": [shop_point(i) for i in range(SHOP_ROWS)],
            "other": [[float(i)] for i in range(SHOP_ROWS)],
            "event_timestamp": [SHOP_TIME - timedelta(minutes=i) for i in range(SHOP_ROWS)],
        }
    )


@pytest.fixture
def shop_store(tmp_path):
    """A feature store with two views of the same rows: by item, and by item and shop."""
    store = FeatureStore(
        config=RepoConfig(
            project="shop",
            provider="local",
            registry=str(tmp_path / "registry.db"),
            online_store={
                "type": "vector",
                "path": str(tmp_path / "vector.db"),
                "text_search_enabled": True,
            },
            entity_key_serialization_version=3,
            repo_path=tmp_path,
        )
    )
    shop_frame().to_parquet(tmp_path / "items.parquet")
    source = FileSource(path=str(tmp_path / "items.parquet"), timestamp_field="event_timestamp")
    item = Entity(name="item", join_keys=["id"], value_type=ValueType.INT64)
    shop = Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING)
    schema = [
        Field(name="title", dtype=String),
        Field(name="price", dtype=Float64),
        Field(name="stock", dtype=Int64),
        Field(name="tags", dtype=Array(String)),
        Field(
            name="embedding",
            dtype=Array(Float32),
            vector_index=True,
            vector_length=2,
            vector_search_metric="L2",
        ),
        Field(name="other", dtype=Array(Float64)),
    ]
    views = [
        FeatureView(name="items", entities=[item], schema=schema, source=source),
        FeatureView(name="both", entities=[item, shop], schema=schema, source=source),
    ]
    store.apply([item, shop, *views])
    for view in views:
        store.write_to_online_store(view.name, shop_frame())
    return store


@pytest.fixture
def items(shop_store):
    """The view of items."""
    return feast_vector.open_view(shop_store, "items")
