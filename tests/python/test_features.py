"""`get_online_features` by column gives what Feast's own way gives, message for message."""

import asyncio
import threading

import numpy as np
import pandas as pd
import pytest
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    RepoConfig,
    ValueType,
    metrics,
)
from feast.infra.online_stores.online_store import OnlineStore
from feast.on_demand_feature_view import on_demand_feature_view
from feast.protos.feast.types.Value_pb2 import RepeatedValue, Value
from feast.types import Array, Float32, Float64, Int64, String
from feast_vector import errors
from feast_vector.online_store import VectorOnlineStore
from hypothesis import given, settings
from hypothesis import strategies as st

NOW = pd.Timestamp("2026-03-01 12:00:00.123456", tz="UTC")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Views of items, of items and shops, and of nothing at all; and one on top of them."""
    folder = tmp_path_factory.mktemp("features")
    store = FeatureStore(
        config=RepoConfig(
            project="shop",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store={"type": "vector", "path": str(folder / "online.db")},
            entity_key_serialization_version=3,
            repo_path=folder,
        )
    )
    item = Entity(name="item", join_keys=["id"], value_type=ValueType.INT64)
    shop = Entity(name="shop_entity", join_keys=["shop"], value_type=ValueType.STRING)
    frame = pd.DataFrame(
        {
            "id": range(6),
            "shop": [f"s{i % 2}" for i in range(6)],
            "name": ["a", None, "", "é", "b", "c"],
            "price": [0.5, float("nan"), -0.0, 1e300, None, 3.0],
            "vector": [[1.0, 2.0], [], [0.5], None, [7.0], [1e-3]],
            "event_timestamp": [NOW - pd.Timedelta(days=i * 8000) for i in range(6)],
        }
    )
    frame.to_parquet(folder / "items.parquet")
    source = FileSource(path=str(folder / "items.parquet"), timestamp_field="event_timestamp")
    schema = [
        Field(name="name", dtype=String),
        Field(name="price", dtype=Float64),
        Field(name="vector", dtype=Array(Float32)),
    ]
    views = [
        FeatureView(name="items", entities=[item], schema=schema, source=source),
        FeatureView(name="both", entities=[item, shop], schema=schema, source=source),
        FeatureView(name="shops", entities=[shop], schema=schema, source=source),
        FeatureView(name="everything", entities=[], schema=schema, source=source),
        FeatureView(
            name="never_written",
            entities=[item],
            schema=[Field(name="more", dtype=Int64)],
            source=source,
        ),
    ]

    @on_demand_feature_view(sources=[views[0]], schema=[Field(name="doubled", dtype=Float64)])
    def on_top(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"doubled": inputs["price"] * 2})

    pairs = FeatureService(
        name="pairs",
        features=[
            views[0][["name"]].with_name("origin").with_join_key_map({"id": "origin_id"}),
            views[0][["price"]].with_name("target").with_join_key_map({"id": "target_id"}),
        ],
    )
    store.apply([item, shop, *views, on_top, pairs])
    for view in views[:4]:
        store.write_to_online_store(view.name, frame)
    return store


class FeastsWay(VectorOnlineStore):
    """Our store, read as Feast reads any."""

    get_online_features = OnlineStore.get_online_features
    get_online_features_async = OnlineStore.get_online_features_async
    _read_features_per_fv = OnlineStore._read_features_per_fv
    _read_features_per_fv_async = OnlineStore._read_features_per_fv_async


@pytest.fixture(scope="module")
def feasts(store):
    """The same store, read Feast's way."""
    other = FeatureStore(config=store.config.model_copy(deep=True))
    other._get_provider().online_store.__class__ = FeastsWay
    return other


FEATURES = [
    f"{view}:{name}"
    for view in ("items", "both", "shops", "everything")
    for name in ("name", "price", "vector")
] + ["never_written:more", "on_top:doubled"]
ROWS = st.lists(
    st.fixed_dictionaries(
        {"id": st.integers(-1, 7), "shop": st.sampled_from(["s0", "s1", "elsewhere"])}
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(
    features=st.lists(st.sampled_from(FEATURES), min_size=1, max_size=8, unique=True),
    rows=ROWS,
    versions=st.booleans(),
    is_async=st.booleans(),
)
def test_both_ways_give_the_same_message(store, feasts, features, rows, versions, is_async):
    request = {
        "features": features,
        "entity_rows": rows,
        "full_feature_names": True,
        "include_feature_view_version_metadata": versions,
    }

    def ask(feature_store):
        if is_async:
            return asyncio.run(feature_store.get_online_features_async(**request))
        return feature_store.get_online_features(**request)

    assert_same(ask(store), ask(feasts))


def assert_same(ours, theirs):
    # By their bytes, because a NaN is not equal to itself.
    assert ours.proto.SerializeToString(deterministic=True) == theirs.proto.SerializeToString(
        deterministic=True
    )
    assert ours._feature_types == theirs._feature_types


def answer_or_error(feature_store, *request):
    try:
        return feature_store.get_online_features(*request)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is compared
        return error


ODD = st.one_of(
    st.integers(-1, 7),
    st.integers(),
    st.booleans(),
    st.integers(0, 6).map(np.int64),
    st.integers(0, 6).map(float),
    st.integers(0, 6).map(str),
    st.sampled_from(["s0", "", "é", "\ud800", b"s0", None, [1], pd.Timestamp(3)]),
)


@settings(max_examples=300, deadline=None)
@given(ids=st.lists(ODD, max_size=4), shops=st.lists(ODD, max_size=4), by_column=st.booleans())
def test_whatever_the_entities_are(store, feasts, ids, shops, by_column):
    """Values that Feast converts, or refuses, are converted or refused in the same words."""
    rows = {"id": ids, "shop": shops}
    if not by_column:
        rows = [{"id": i, "shop": s} for i, s in zip(ids, shops, strict=False)]

    request = (["items:name", "shops:price"], rows)
    ours, theirs = answer_or_error(store, *request), answer_or_error(feasts, *request)
    if not isinstance(theirs, Exception):
        assert_same(ours, theirs)
    elif isinstance(ours, errors.InvalidInputError):
        # Feast fails on a null in Python, we say what is wrong with it.
        assert isinstance(theirs, TypeError)
        assert "has a value of type null" in str(ours)
    else:
        assert (type(ours), str(ours)) == (type(theirs), str(theirs))


@pytest.mark.parametrize(
    "rows",
    [
        [],
        {},
        [{"id": 1}, {"id": 2, "shop": "s0"}],
        [{"id": 1, "shop": "s0"}, {"id": 2}],
        {"id": (1, 2)},
        {"id": [1, 2], "shop": ["s0"]},
        {"id": [1], "unknown": [2]},
        {"item": [1]},
        {"id": [2], 5: [1]},
        {"id": RepeatedValue(val=[Value(int64_val=2), Value(int64_val=3)])},
        {"id": [Value(int64_val=2)]},
    ],
    ids=str,
)
def test_odd_shapes_of_entities(store, feasts, rows):
    request = (["items:name"], rows)
    ours, theirs = answer_or_error(store, *request), answer_or_error(feasts, *request)
    if isinstance(theirs, Exception):
        assert (type(ours), str(ours)) == (type(theirs), str(theirs))
    else:
        assert_same(ours, theirs)


def test_plain_requests_never_go_feasts_way(store, monkeypatch):
    def fail(*_, **__):
        pytest.fail("Feast converted the entities")

    monkeypatch.setattr("feast.utils.python_values_to_proto_values", fail)
    monkeypatch.setattr(VectorOnlineStore, "_read_features_per_fv", fail)
    for rows in ([{"id": 1, "shop": "s1"}], {"id": [1], "shop": ["s1"]}):
        answer = store.get_online_features(["both:name", "items:price"], rows).to_dict()
        assert answer == {"id": [1], "shop": ["s1"], "name": [None], "price": [None]}


def test_a_request_is_resolved_again_after_the_view_has_changed(store, feasts):
    """What is remembered of earlier calls does not outlive Feast's registry."""
    view = store.get_feature_view("never_written")
    request = (["never_written:more"], [{"id": 1}])
    assert store.get_online_features(*request)._feature_types["more"] == ValueType.INT64
    changed = FeatureView(
        name=view.name,
        entities=[store.get_entity("item")],
        schema=[Field(name="more", dtype=String)],
        source=view.batch_source,
    )
    store.apply([changed])
    assert store.get_online_features(*request)._feature_types["more"] == ValueType.STRING
    store.apply([view])


@pytest.mark.parametrize("is_measured", [True, False])
def test_feasts_metrics_hear_the_same(store, feasts, monkeypatch, is_measured):
    monkeypatch.setattr(metrics._config, "online_features", is_measured)
    heard = []
    monkeypatch.setattr(metrics, "track_feature_statuses", lambda *what: heard.append(what))
    monkeypatch.setattr(
        metrics, "track_online_store_read", lambda seconds: heard.append(seconds >= 0)
    )
    request = (["items:name", "never_written:more"], {"id": [1, 2, 99]})
    for feature_store in (store, feasts):
        feature_store.get_online_features(*request)
        asyncio.run(feature_store.get_online_features_async(*request))
    half = len(heard) // 2
    assert sorted(heard[:half], key=str) == sorted(heard[half:], key=str)
    assert heard.count(True) == (4 if is_measured else 0)


def test_aliases_and_renamed_join_keys(store, feasts):
    service = store.get_feature_service("pairs")
    rows = {"origin_id": [1, 3, 3, 99], "target_id": [0, 5, 1, 1]}
    for full_names in (True, False):
        answers = [
            feature_store.get_online_features(
                service, rows, full_feature_names=full_names
            ).proto.SerializeToString(deterministic=True)
            for feature_store in (store, feasts)
        ]
        assert answers[0] == answers[1]


def test_requests_that_feast_itself_refuses(store, feasts):
    """Both ways say the same of join keys that are missing."""
    for feature_store in (store, feasts):
        with pytest.raises(Exception, match="shop"):
            feature_store.get_online_features(["shops:name"], [{"id": 1}])
    with pytest.raises(errors.InvalidInputError, match=r"'items'.*join key 'id' has a value of"):
        store.get_online_features(["items:name"], [{"id": None}])


def test_a_thousand_entities_and_duplicates(store, feasts):
    rows = {"id": [i % 9 - 1 for i in range(1000)]}
    answers = [
        feature_store.get_online_features(["items:name", "items:vector"], rows).to_dict()
        for feature_store in (store, feasts)
    ]
    assert answers[0] == answers[1]
    assert len(answers[0]["name"]) == 1000


def test_views_are_read_as_of_one_moment(store):
    """A write of two views, one after the other, is never seen the other way round."""
    other = FeatureStore(config=store.config.model_copy(deep=True))
    done = threading.Event()

    def write():
        for count in range(1, 80):
            frame = pd.DataFrame(
                {
                    "id": [4],
                    "shop": ["s0"],
                    "name": [str(count)],
                    "price": [1.0],
                    "vector": [[1.0]],
                    "event_timestamp": [NOW + pd.Timedelta(seconds=count)],
                }
            )
            other.write_to_online_store("items", frame)
            other.write_to_online_store("both", frame)
        done.set()

    writer = threading.Thread(target=write)
    before = store.get_online_features(["items:name"], [{"id": 4}]).to_dict()
    assert before["name"] == ["b"]
    writer.start()
    while not done.is_set():
        found = store.get_online_features(
            ["both:name", "items:name"], [{"id": 4, "shop": "s0"}], full_feature_names=True
        ).to_dict()
        first = int((found["items__name"][0] or "0").replace("b", "0"))
        second = int((found["both__name"][0] or "0").replace("b", "0"))
        assert first - second in (0, 1)
    writer.join()
