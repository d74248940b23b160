"""Bad input gets a sentence that says what was wrong, where, and what to do; nothing is lost."""

import ast
import inspect
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import (
    at,
    in_another_process,
    integer,
    key,
    make_harness,
    make_view,
    text,
    vector,
    vector_view,
)
from feast import Field
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigError, RepoConfig, load_repo_config
from feast.types import Array, Float32, String
from pydantic import ValidationError

import feast_vector
from feast_vector import _core, errors

HERE = Path(__file__).parent


def search(harness, view, query, top_k=3, metric="L2", features=("title",)):
    return harness.store.retrieve_online_documents_v2(
        harness.config, view, list(features), query, top_k, metric
    )


@pytest.fixture
def items(harness):
    """A view with two rows."""
    view = vector_view()
    harness.write(
        view,
        (key(id=1), {"title": text("one"), "embedding": vector(1, 0)}, at(0)),
        (key(id=2), {"title": text("two"), "embedding": vector(0, 1)}, at(0)),
    )
    return view


# --- vectors and queries


def test_a_vector_of_the_wrong_length_is_refused_and_the_batch_with_it(harness, items):
    rows = [(key(id=i), {"embedding": vector(i, i)}, at(1)) for i in range(3, 9)]
    rows.append((key(id=99), {"embedding": vector(1, 2, 3)}, at(1)))
    pattern = (
        r"feature view 'items' of project 'shop', row 6 \(id=99\): feature 'embedding' "
        r"\(FLOAT_LIST\): a vector of 3 values where the feature declares vector_length=2; nothing"
    )
    with pytest.raises(errors.InvalidInputError, match=pattern) as caught:
        harness.write(items, *rows)
    assert caught.value.kind == "invalid_value"
    assert harness.read(items, key(id=3)) == [(None, None)]
    assert len(search(harness, items, [1, 0], 100)) == 2


@pytest.mark.parametrize(
    ("query", "pattern"),
    [
        ([1, 0, 0], r"'items'.*feature 'embedding': the query vector has 3 values, but .* have 2"),
        ([float("nan"), 0], r"feature 'embedding': the query vector holds NaN at position 0"),
        ([0, float("inf")], r"the query vector holds inf at position 1"),
        ([0, 0], r"the query vector is all zeros, which has no direction"),
        ([], r"the query vector is empty"),
        ([1e39, 0], r"which float32 cannot hold"),
        ("abc", r"'items', feature 'embedding': the query vector has to be a list or array of num"),
        ([[1, 0]], r"has the shape \(1, 2\); it has to have one dimension"),
        ([None, 1], r"the query vector"),
        (np.array(["x"]), r"the query vector has to be a list or array of numbers"),
    ],
)
def test_bad_queries(harness, items, query, pattern):
    with pytest.raises(errors.InvalidInputError, match=pattern) as caught:
        search(harness, items, query, metric="cosine")
    assert caught.value.kind == "invalid_query"


def test_a_query_of_another_length_where_none_is_declared(harness):
    view = vector_view(length=0)
    harness.write(view, (key(id=1), {"title": text(""), "embedding": vector(1, 2)}, at(0)))
    with pytest.raises(ValueError, match="has 3 values, but the stored vectors have 2"):
        search(harness, view, [1, 2, 3])


@pytest.mark.parametrize("top_k", [0, -1, "ten", 2.5, None, True])
def test_bad_top_k(harness, items, top_k):
    with pytest.raises(ValueError, match="top_k has to be a whole number of at least 1, not"):
        search(harness, items, [1, 0], top_k=top_k)


def test_unknown_metrics(tmp_path, harness, items):
    pattern = "unknown metric 'manhattan'; use 'cosine', 'L2' or 'inner_product'"
    with pytest.raises(ValueError, match=pattern):
        search(harness, items, [1, 0], metric="manhattan")
    view = vector_view(metric="manhattan")
    with pytest.raises(ValueError, match=pattern):
        search(harness, view, [1, 0])
    with pytest.raises(ValidationError, match=pattern):
        make_harness(tmp_path / "x", similarity="manhattan").config.online_store  # noqa: B018


def test_views_without_a_vector_field(harness):
    view = make_view()
    with pytest.raises(ValueError, match=r"'items' has no vector field; declare one with `Field"):
        search(harness, view, [1, 0], features=["name"])


def test_several_vector_fields(harness, items):
    items.features.append(Field(name="second", dtype=Array(Float32), vector_index=True))
    with pytest.raises(ValueError, match=r"several vector fields \(embedding, second\)"):
        search(harness, items, [1, 0])


def test_a_vector_field_that_holds_no_vectors(harness):
    view = make_view(fields={"title": String})
    view.features[0].vector_index = True
    harness.write(view, (key(id=1), {"title": text("x")}, at(0)))
    pattern = r"feature 'title': features of type STRING hold no vectors; searched can be lists"
    with pytest.raises(ValueError, match=pattern) as caught:
        search(harness, view, [1, 0])
    assert caught.value.kind == "not_a_vector"


def test_unknown_features(harness, items):
    pattern = r"'items' has no feature 'titel'; its features are: embedding, title"
    with pytest.raises(errors.NotFoundError, match=pattern):
        search(harness, items, [1, 0], features=["titel"])


def test_search_that_is_switched_off(tmp_path, items):
    harness = make_harness(tmp_path, vector_enabled=False)
    with pytest.raises(ValueError, match="set `vector_enabled: true` in the online_store section"):
        search(harness, items, [1, 0])


# --- configuration


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("pth: x", r"pth\s+Extra inputs are not permitted"),
        ("durability: maybe", r"durability\s+Input should be 'full', 'normal' or 'off'"),
        ("busy_timeout: -1", r"busy_timeout\s+Input should be greater than or equal to 0"),
        ("similarity: manhattan", r"similarity\s+Value error, unknown metric 'manhattan'"),
        ("key_ttl_seconds: 0", r"key_ttl_seconds\s+Input should be greater than 0"),
    ],
)
def test_a_wrong_key_in_feature_store_yaml_is_named(tmp_path, line, pattern):
    path = tmp_path / "feature_store.yaml"
    path.write_text(
        "project: shop\nprovider: local\nregistry: r.db\nentity_key_serialization_version: 3\n"
        f"online_store:\n  type: vector\n  {line}\n"
    )
    with pytest.raises(FeastConfigError, match=pattern):
        load_repo_config(tmp_path, path)


def test_every_config_key_is_documented():
    fields = feast_vector.VectorOnlineStoreConfig.model_fields
    source = inspect.getsource(feast_vector.VectorOnlineStoreConfig)
    body = ast.parse(source).body[0].body
    documented = {
        body[i].target.id
        for i in range(len(body) - 1)
        if isinstance(body[i], ast.AnnAssign) and isinstance(body[i + 1], ast.Expr)
    }
    assert documented == set(fields)
    readme = (HERE.parents[1] / "README.md").read_text()
    assert [name for name in fields if f"`{name}`" not in readme] == []


# --- files


def test_a_missing_folder(harness, tmp_path):
    harness.config.online_store.path = str(tmp_path / "no" / "such" / "folder" / "online.db")
    pattern = r"the folder '.*/no/such/folder' does not exist and cannot be created .*mend `path`"
    with pytest.raises(errors.StorageError, match=pattern) as caught:
        harness.read(make_view(), key(id=1))
    assert caught.value.kind == "cannot_open"


def test_a_folder_in_place_of_a_file(harness, tmp_path):
    harness.config.online_store.path = str(tmp_path)
    with pytest.raises(errors.StorageError, match="`path` is a folder; add a file name"):
        harness.read(make_view(), key(id=1))


def test_memory_is_no_place(harness):
    harness.config.repo_path = None
    harness.config.online_store.path = ":memory:"
    with pytest.raises(errors.StorageError, match="cannot live in memory; set `path` to a file"):
        harness.read(make_view(), key(id=1))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="permissions are Unix's")
@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_that_may_not_be_written(harness, tmp_path, exists):
    view = make_view()
    if exists:
        harness.write(view, (key(id=1), {"number": integer(1)}, at(0)))
    harness.store = pickle.loads(pickle.dumps(harness.store))
    folder = Path(harness.config.online_store.path).parent
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    for parent in list(folder.parents)[:3]:
        parent.chmod(parent.stat().st_mode | 0o755)
    try:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            if os.getuid() == 0:
                os.setuid(65534)
            try:
                harness.write(view, (key(id=2), {"number": integer(2)}, at(0)))
            except errors.StorageError as error:
                os.write(writing, f"{error.kind} {error}".encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(writing)
        said = os.read(reading, 10_000).decode()
    finally:
        folder.chmod(0o755)
    assert re.match(r"(read_only|cannot_open) ", said), said
    assert "folder" in said
    assert "writable" in said


def test_a_file_that_is_no_database(harness):
    Path(harness.config.online_store.path).write_text("These are notes, not a database. " * 40)
    pattern = r"online store '.*': the file is not a SQLite database; set another `path`"
    with pytest.raises(errors.FormatError, match=pattern) as caught:
        harness.read(make_view(), key(id=1))
    assert caught.value.kind == "not_a_feast_vector_file"
    assert Path(harness.config.online_store.path).read_text().startswith("These are notes")


def sql(path, *statements):
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for s in sys.argv[2:]: c.execute(s)"
    )
    subprocess.run([sys.executable, "-c", code, path, *statements], check=True)


def test_a_database_of_another_program(harness):
    sql(harness.config.online_store.path, "CREATE TABLE notes (text)")
    with pytest.raises(errors.FormatError, match="a SQLite database of another program"):
        harness.read(make_view(), key(id=1))


def test_a_database_of_feasts_own_sqlite_store(harness, tmp_path):
    theirs = make_harness(tmp_path, kind="sqlite")
    theirs.update([make_view()])
    theirs.write(make_view(), (key(id=1), {"number": integer(1)}, at(0)))
    harness.config.online_store.path = theirs.config.online_store.path
    pattern = "belongs to Feast's own sqlite online store; feast-vector does not touch it. Set ano"
    with pytest.raises(errors.FormatError, match=pattern):
        harness.update([make_view()])


def test_a_database_of_a_newer_version(harness):
    harness.update([make_view()])
    asyncio_close(harness)
    sql(
        harness.config.online_store.path,
        "UPDATE _feast_vector_meta SET value = 'feast-vector 9.9.9' WHERE key = 'written_by'",
        "PRAGMA user_version = 99",
    )
    pattern = r"has format version 99, written by feast-vector 9.9.9; feast-vector .* reads up to"
    with pytest.raises(errors.FormatError, match=pattern) as caught:
        harness.read(make_view(), key(id=1))
    assert caught.value.kind == "newer_format"


def asyncio_close(harness):
    for engine in harness.store._engines.values():
        engine.close()


def test_a_damaged_database(harness):
    view = make_view()
    rows = [(key(id=i), {"name": text("x" * 500)}, at(0)) for i in range(500)]
    harness.write(view, *rows)
    asyncio_close(harness)
    path = Path(harness.config.online_store.path)
    content = bytearray(path.read_bytes())
    content[4096 * 8 : 4096 * 60] = b"\xa5" * (4096 * 52)
    path.write_bytes(content)
    pattern = r"online store '.*': the database is damaged; restore a backup, or move the file away"
    with pytest.raises(errors.FormatError, match=pattern):
        harness.read(view, *(key(id=i) for i in range(500)))


def test_a_database_that_another_process_holds_for_too_long(harness, tmp_path):
    view = make_view()
    harness.update([view])
    harness.config.online_store.busy_timeout = 0.3
    holder = in_another_process(
        tmp_path,
        """
import sqlite3
connection = sqlite3.connect(harness.config.online_store.path, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(60)
""",
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        start = time.monotonic()
        with pytest.raises(errors.BusyError, match=r"holds the database.*raise `busy_timeout`"):
            harness.write(view, (key(id=1), {"number": integer(1)}, at(0)))
        assert time.monotonic() - start < 20
        # Readers are not held up.
        assert harness.read(view, key(id=1)) == [(None, None)]
        holder.send_signal(signal.SIGKILL)
    harness.write(view, (key(id=1), {"number": integer(1)}, at(0)))
    assert harness.read(view, key(id=1)) == [(at(0), {"number": integer(1)})]


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is Unix's")
def test_a_disk_that_cannot_take_more(tmp_path):
    """A limit on file sizes stands for a full disk; `src/store` tests SQLite's own code for it."""
    child = in_another_process(
        tmp_path,
        """
import resource
from feast_vector import errors
view = make_view()
harness.write(view, (key(id=0), {"name": text("safe")}, at(0)))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
rows = [(key(id=i), {"name": text("x" * 1000)}, at(1)) for i in range(1000)]
try:
    harness.write(view, *rows)
except errors.StorageError as error:
    print(error.kind, error)
print(harness.read(view, key(id=0), key(id=1)) == [(at(0), {"name": text("safe")}), (None, None)])
""",
    )
    said = child.communicate(timeout=60)[0].splitlines()
    assert re.match(r"(io|disk_full) online store '.*vector.db': .*SQLite", said[0]), said
    assert said[1] == "True"


# --- keys and values


def test_an_entity_key_of_a_kind_that_feast_does_not_have(harness):
    view = make_view()
    pattern = r"join key 'id' has a value of type DOUBLE; entity keys can be STRING, BYTES, INT32"
    bad = key(id=Value(double_val=1.5))
    with pytest.raises(ValueError, match=pattern):
        harness.write(view, (bad, {"number": integer(1)}, at(0)))
    with pytest.raises(ValueError, match="entity keys can be"):
        harness.write(view, (key(id=1), {}, at(0)))
        harness.read(view, bad)
    lopsided = EntityKey(join_keys=["a", "b"], entity_values=[integer(1)])
    with pytest.raises(ValueError, match="an entity key has 2 join keys but 1 values"):
        harness.write(view, (lopsided, {"number": integer(1)}, at(0)))


@pytest.mark.parametrize("position", [0, 10_000])
def test_a_value_that_is_none_of_feasts(harness, position):
    view = make_view()
    rows = [(key(id=i), {"number": integer(i)}, at(0)) for i in range(10_001)]
    rows[position] = (key(id=position), {"number": 5}, at(0))
    with pytest.raises(errors.InvalidInputError, match="feature 'number': a value cannot be seria"):
        harness.write(view, *rows)
    assert harness.read(view, key(id=1)) == [(None, None)]


def test_a_time_that_is_none(harness):
    with pytest.raises(errors.InvalidInputError, match="entity key or timestamps cannot be writ"):
        harness.write(make_view(), (key(id=1), {"number": integer(1)}, "yesterday"))


def test_a_value_of_another_type_than_the_schema_is_kept(harness):
    """Feast's own stores take it, and so its writers send it."""
    view = make_view()
    harness.write(view, (key(id=1), {"number": text("twelve"), "name": integer(5)}, at(0)))
    assert harness.read(view, key(id=1))[0][1] == {"number": text("twelve"), "name": integer(5)}


# --- the exceptions


def test_every_kind_of_the_core_has_its_class():
    kinds = _core.error_kinds()
    assert len(kinds) > 10
    for name in kinds.values():
        assert issubclass(getattr(errors, name), errors.FeastVectorError)
    assert set(kinds.values()) == {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and value is not errors.FeastVectorError
    }


def test_exceptions_survive_pickling():
    error = errors.BusyError("wait", "busy")
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back), back.kind) == (errors.BusyError, "wait", "busy")


def test_messages_are_sentences_without_debug_dumps(harness, items):
    messages = []
    for query in ([1], [float("nan"), 1], [0, 0]):
        with pytest.raises(errors.InvalidInputError) as caught:
            search(harness, items, query, metric="cosine")
        messages.append(str(caught.value))
    assert not any(re.search(r"Some\(|Err\(|\bNone\b|\w+ \{", message) for message in messages)


def test_repo_config_names_the_store(tmp_path):
    config = RepoConfig(
        project="shop",
        provider="local",
        registry="r.db",
        online_store="vector",
        entity_key_serialization_version=3,
        repo_path=tmp_path,
    )
    assert type(config.online_store) is feast_vector.VectorOnlineStoreConfig
