"""What people bring from other stores: their options, their habits, and the table of Feast's own."""

import logging
import pickle
import subprocess
import sys
import warnings
from datetime import datetime, timedelta, timezone

import feast_vector
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from conftest import at, integer, key, make_harness, make_view, text, vector
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Array, Float32, Int64, String
from feast_vector import InvalidInputError

SECTIONS = {
    "rag": {
        "path": "d.db",
        "vector_enabled": True,
        "embedding_dim": 384,
        "index_type": "FLAT",
        "metric_type": "COSINE",
    },
    "agent": {"embedding_dim": 384, "index_type": "IVF_FLAT", "metric_type": "IP", "nlist": 128},
    "milvus": {"host": "localhost", "port": 19530, "index_type": "HNSW", "metric_type": "L2"},
    "pgvector": {
        "host": "localhost",
        "port": 5432,
        "database": "feast",
        "db_schema": "public",
        "user": "feast",
        "password": "hunter2",
        "vector_enabled": True,
    },
    "faiss": {"dimension": 128, "index_path": "i", "index_type": "IVFFlat", "nlist": 100},
    "sqlite": {"vector_enabled": True, "vector_len": 384, "text_search_enabled": True},
}


def section(**options):
    """The section as Feast makes it."""
    return RepoConfig(
        project="p",
        registry="r.db",
        provider="local",
        entity_key_serialization_version=3,
        online_store={"type": "vector", **options},
    ).online_store


@pytest.mark.parametrize("name", SECTIONS)
def test_sections_of_feasts_examples_are_taken(name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        online = section(**SECTIONS[name])
    said = " ".join(str(warning.message) for warning in caught)
    for option in SECTIONS[name]:
        ours = hasattr(online, option) or option == "metric_type"
        assert ours != (f"`{option}`" in said)
    assert "hunter2" not in said


def test_options_with_a_meaning_here_keep_it():
    online = section(metric_type="IP", index_type="IVF_FLAT")
    assert (online.similarity, online.index_type) == ("IP", "ivf")
    assert section(index_type="FLAT").index_type == "flat"
    assert section(index_type="HNSW").index_type == "auto"
    assert section(similarity="L2", metric_type="L2").similarity == "L2"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"vector_enable": True},
            r"vector_enable\n  Extra inputs are not permitted; did you mean `vector_enabled`",
        ),
        ({"metrik_type": "L2"}, "did you mean `metric_type`"),
        ({"hologram": 1}, r"hologram\n  Extra inputs .*; there are: .*busy_timeout"),
        ({"similarity": "L2", "metric_type": "IP"}, "`metric_type` says something else"),
        ({"index_type": "tree"}, "index_type"),
        ({"enforce_ttl": True, "search_past_ttl": True}, "`search_past_ttl` says something else"),
    ],
)
def test_options_that_are_wrong_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        section(**options, password="hunter2")
    online = feast_vector.VectorOnlineStoreConfig
    with pytest.raises(ValueError, match=message) as caught:
        online(type="vector", **options, password="hunter2")
    assert "hunter2" not in str(caught.value)


def test_the_old_option_about_ttl_says_what_to_write():
    with pytest.warns(UserWarning, match="`search_past_ttl`: .*`enforce_ttl: true`"):
        assert section(search_past_ttl=True).enforce_ttl is False
    with pytest.warns(UserWarning, match="search_past_ttl"):
        assert section(search_past_ttl=False).enforce_ttl is True


# --- ttl


@pytest.fixture(params=[False, True], ids=["as feast", "enforced"])
def dated(request, tmp_path):
    """A store, with one row past the view's ttl and one within; and whether that is enforced."""
    store = FeatureStore(
        config=RepoConfig(
            project="p",
            registry=str(tmp_path / "r.db"),
            provider="local",
            entity_key_serialization_version=3,
            online_store={
                "type": "vector",
                "path": str(tmp_path / "o.db"),
                "enforce_ttl": request.param,
            },
        )
    )
    entity = Entity(name="id", join_keys=["id"], value_type=ValueType.INT64)
    view = FeatureView(
        name="v",
        entities=[entity],
        ttl=timedelta(hours=2),
        schema=[
            Field(name="vector", dtype=Array(Float32), vector_index=True, vector_length=2),
            Field(name="name", dtype=String),
        ],
        source=FileSource(path=str(tmp_path / "x.parquet"), timestamp_field="event_timestamp"),
    )
    store.apply([entity, view])
    now = datetime.now(timezone.utc)
    frame = pd.DataFrame(
        {
            "id": [1, 2],
            "vector": [[1.0, 0.0], [0.0, 1.0]],
            "name": ["old", "new"],
            "event_timestamp": [now - timedelta(days=9), now],
        }
    )
    store.write_to_online_store("v", frame)
    return store, request.param


@pytest.mark.parametrize("as_columns", [False, True])
def test_reads_leave_out_rows_past_their_ttl_only_if_told(dated, as_columns):
    store, enforced = dated
    rows = {"id": [1, 2, 3]} if as_columns else [{"id": 1}, {"id": 2}, {"id": 3}]
    answer = store.get_online_features(["v:name", "v:vector"], rows)
    names, vectors = answer.proto.results[-2:]
    expected = ["OUTSIDE_MAX_AGE" if enforced else "PRESENT", "PRESENT", "NOT_FOUND"]
    status = answer.proto.results[-1].DESCRIPTOR.fields_by_name["statuses"].enum_type
    for result in (names, vectors):
        assert [status.values_by_number[s].name for s in result.statuses] == expected
    assert answer.to_dict()["name"] == [None if enforced else "old", "new", None]

    view = feast_vector.open_view(store, "v")
    answer = view.read([1, 2], as_dict=True)
    assert answer["name"] == [None if enforced else "old", "new"]
    assert answer["vector"] == [None if enforced else [1, 0], [0, 1]]
    assert (answer["event_timestamp"][0] is None) == enforced
    assert answer["id"] == [1, 2]
    found = store._get_provider().online_read(
        store.config, store.get_feature_view("v"), [key(id=1), key(id=2)], ["name"]
    )
    assert (found[0] == (None, None)) == enforced
    assert found[1][1] == {"name": text("new")}


def test_searches_leave_out_rows_past_their_ttl_only_if_told(dated):
    store, enforced = dated
    answer = store.retrieve_online_documents_v2(
        features=["v:name"], query=[1.0, 0.1], top_k=3
    ).to_dict()
    assert answer["name"] == (["new"] if enforced else ["old", "new"])
    view = feast_vector.open_view(store, "v")
    names = view.search([1.0, 0.1], as_dict=True)["name"]
    assert names == (["new"] if enforced else ["old", "new"])
    assert view.search([1.0, 0.1], past_ttl=False, as_dict=True)["name"] == ["new"]
    assert view.search([1.0, 0.1], past_ttl=True, as_dict=True)["name"] == ["old", "new"]


# --- the native API


@pytest.mark.parametrize(
    "keys",
    [
        2,
        np.int64(2),
        [2],
        (2,),
        {2},
        np.array([2]),
        np.array(2),
        range(2, 3),
        {"id": 2},
        {"id": [2]},
        [{"id": 2}],
        pd.Series([2]),
        pl.Series([2]),
        pa.array([2]),
        pa.chunked_array([[2]]),
        pd.DataFrame({"id": [2], "other": ["x"]}),
        pd.DataFrame({"id": [1, 2]}).query("id > 1"),
        pl.DataFrame({"id": [2]}),
        pa.table({"id": [2]}),
        pa.record_batch({"id": [2]}),
    ],
    ids=lambda keys: f"{type(keys).__module__}.{type(keys).__name__}",
)
def test_keys_in_every_form(dated, keys):
    store, _ = dated
    view = feast_vector.open_view(store, "v")
    assert view.read(keys, "name", as_dict=True)["name"] == ["new"]


def test_one_feature_by_its_name_and_keys_that_are_none(dated):
    store, _ = dated
    view = feast_vector.open_view(store, "v")
    assert view.search([0.0, 1.0], 1, features="name").schema.names[:2] == ["id", "name"]
    with pytest.raises(feast_vector.NotFoundError, match="no feature 'nam'"):
        view.read(2, features="nam")
    for keys in ({"ID": 2}, [{"id": 1, "x": 2}], pd.DataFrame({"x": [1]})):
        with pytest.raises(
            InvalidInputError, match=r"join keys, which are: id; pass values, dicts"
        ):
            view.read(keys)
    with pytest.raises(InvalidInputError, match="feature view 'v', join key 'id'"):
        view.read("two")
    assert view.delete(2) == 1
    assert view.delete(2) == 0


def test_a_view_goes_to_another_process(dated, tmp_path):
    store, enforced = dated
    view = feast_vector.open_view(store, "v")
    view.read(2)
    pickled = pickle.dumps(view)
    again = pickle.loads(pickled)
    assert again.read(2, "name", as_dict=True) == view.read(2, "name", as_dict=True)
    (tmp_path / "view").write_bytes(pickled)
    program = (
        "import pickle, sys; view = pickle.load(open(sys.argv[1], 'rb'));"
        " print(view, view.read(2, as_dict=True)['name'], view.search([0, 1.0], 1, as_dict=True)['id'])"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "view")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout.strip() == "VectorView('v') ['new'] [2]"
    assert enforced == again._config.online_store.enforce_ttl


# --- changes of a view, and what was there before


def test_a_name_that_is_deleted_and_kept_keeps_its_rows(tmp_path):
    harness = make_harness(tmp_path / "s")
    harness.config.registry.enable_online_feature_view_versioning = True

    def view(number):
        made = make_view(fields={"x": Int64})
        made.current_version_number = number
        return made

    for number in (1, 2):
        harness.update([view(number)])
        harness.write(view(number), (key(id=1), {"x": integer(number)}, at(0)))
    harness.update([view(1)], [view(1)])
    assert harness.read(view(1), key(id=1))[0][1] == {"x": integer(1)}
    harness.update([view(2)], [view(1)])
    assert harness.read(view(2), key(id=1))[0][1] == {"x": integer(2)}
    assert harness.read(view(1), key(id=1)) == [(None, None)]
    harness.update([], [view(2)])
    assert harness.read(view(2), key(id=1)) == [(None, None)]


def test_rows_that_are_ignored_are_logged(harness, caplog):
    view = make_view("logged", fields={"x": Int64})
    caplog.set_level(logging.INFO, "feast_vector")
    harness.write(view, (key(id=1), {"x": integer(1)}, at(5)))
    assert not caplog.records
    older = [(key(id=i), {"x": integer(2)}, at(0)) for i in (1, 2)]
    harness.write(view, *older)
    harness.write(view, (key(id=1), {"x": integer(2)}, at(0)))
    first, second = caplog.records
    assert (first.levelname, second.levelname) == ("WARNING", "INFO")
    assert "feature view 'logged': 1 of 2 rows were ignored" in first.getMessage()
    assert "last_write_wins" in first.getMessage()


def test_apply_says_which_values_went_stale(harness):
    def embeddings(length=2, x=Int64):
        field = Field(name="e", dtype=Array(Float32), vector_index=True, vector_length=length)
        view = make_view(fields={"e": Array(Float32), "x": x})
        view.features[0] = field
        return view

    view = embeddings()
    rows = [(key(id=i), {"e": vector(1, 2), "x": integer(i)}, at(0)) for i in range(3)]
    harness.write(view, *rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        harness.update([view])
    longer = embeddings(length=3)
    with pytest.warns(UserWarning, match=r"feature 'e': .*vector_length=2 and is .*=3.*3 rows.*"):
        harness.update([longer])
    with pytest.raises(InvalidInputError, match=r"stored vectors have 2 .* vector_length=3 by now"):
        harness.find(longer, [1.0, 2.0, 3.0])
    with pytest.raises(InvalidInputError, match=r"2 values, but the feature declares .*=3"):
        harness.find(longer, [1.0, 2.0])
    harness.write(longer, (key(id=7), {"e": vector(1, 2, 3)}, at(0)))
    assert len(harness.find(longer, [1.0, 2.0, 3.0])) == 1
    retyped = embeddings(length=3, x=String)
    message = r"feature 'x': it was INT64 and is STRING by now; 3 rows .*materialize --views items"
    with pytest.warns(UserWarning, match=message):
        harness.update([retyped])
    other = make_view(fields={"x": String}, join_key="shop")
    with pytest.warns(UserWarning, match=r"join keys were id and are shop by now; 4 rows"):
        harness.update([other])


def test_an_empty_table_beside_a_full_one_of_feasts_own_store(tmp_path):
    sqlite = make_harness(tmp_path / "s", kind="sqlite")
    view = make_view(fields={"x": Int64})
    sqlite.update([view])
    sqlite.write(view, (key(id=1), {"x": integer(1)}, at(0)))
    path = sqlite.config.online_store.path
    message = r"'items' has no rows, but the table 'shop_items' .* run `feast-vector import`"
    ours = make_harness(tmp_path / "s", path=path)
    with pytest.warns(UserWarning, match=message):
        ours.update([view])
    with pytest.warns(UserWarning, match=message):
        assert ours.read(view, key(id=1)) == [(None, None)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.read(view, key(id=1))
        ours.write(view, (key(id=2), {"x": integer(2)}, at(0)))
        again = make_harness(tmp_path / "s", path=path)
        again.update([view])
        again.read(view, key(id=1))


def test_a_view_that_is_too_wide_says_so(harness):
    view = make_view(fields={f"f{i}": Int64 for i in range(2001)})
    with pytest.raises(InvalidInputError, match=r"'items'.* has 2002 .*holds 1990"):
        harness.update([view])
