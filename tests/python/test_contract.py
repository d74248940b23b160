"""What Feast asks of an online store: writes, reads, schema changes, teardown."""

import asyncio
import inspect
import pickle
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pandas as pd
from conftest import (
    at,
    integer,
    key,
    make_harness,
    make_view,
    sql_elsewhere,
    text,
    vector,
    vector_view,
)
from feast import Field, ValueType
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Int64
from hypothesis import given, settings
from hypothesis import strategies as st


def test_rows_come_back_in_the_order_of_the_keys(harness):
    view = make_view()
    harness.write(
        view,
        (key(id=1), {"name": text("one"), "number": integer(1)}, at(0)),
        (key(id=2), {"name": text("two"), "number": integer(2)}, at(1)),
    )
    rows = harness.read(view, key(id=2), key(id=9), key(id=1), key(id=2))
    assert rows == [
        (at(1), {"name": text("two"), "number": integer(2)}),
        (None, None),
        (at(0), {"name": text("one"), "number": integer(1)}),
        (at(1), {"name": text("two"), "number": integer(2)}),
    ]
    assert rows[0][0].tzinfo is timezone.utc


def test_only_requested_features_are_read(harness):
    view = make_view()
    harness.write(view, (key(id=1), {"name": text("one"), "number": integer(1)}, at(0)))
    assert harness.read(view, key(id=1), features=["number"]) == [(at(0), {"number": integer(1)})]
    assert harness.read(view, key(id=1), features=["number", "nowhere"])[0][1] == {
        "number": integer(1)
    }


def test_a_view_without_a_table_reads_as_missing(harness):
    assert harness.read(make_view("never_written"), key(id=1), key(id=2)) == [(None, None)] * 2
    assert harness.read(make_view("never_written")) == []


def test_the_newest_event_wins_and_equal_times_overwrite(harness):
    view = make_view()
    number = lambda: harness.read(view, key(id=1))[0][1]["number"].int64_val

    harness.write(view, (key(id=1), {"number": integer(10)}, at(10)))
    harness.write(view, (key(id=1), {"number": integer(5)}, at(5)))
    assert number() == 10
    harness.write(view, (key(id=1), {"number": integer(11)}, at(10)))
    assert number() == 11
    harness.write(view, (key(id=1), {"number": integer(12)}, at(12), at(100)))
    harness.write(view, (key(id=1), {"number": integer(13)}, at(12), at(99)))
    assert number() == 12
    harness.write(view, (key(id=1), {"number": integer(14)}, at(12)))
    assert number() == 14
    # Within a batch, too.
    harness.write(
        view,
        (key(id=1), {"number": integer(30)}, at(30)),
        (key(id=1), {"number": integer(20)}, at(20)),
    )
    assert number() == 30


def test_last_write_wins_where_it_is_configured(tmp_path):
    harness = make_harness(tmp_path, write_conflict="last_write_wins")
    view = make_view()
    harness.write(view, (key(id=1), {"number": integer(10)}, at(10)))
    harness.write(view, (key(id=1), {"number": integer(5)}, at(5)))
    assert harness.read(view, key(id=1)) == [(at(5), {"number": integer(5)})]


def test_a_partial_row_leaves_the_other_features(harness):
    view = make_view()
    harness.write(view, (key(id=1), {"name": text("one"), "number": integer(1)}, at(0)))
    harness.write(
        view,
        (key(id=1), {"number": integer(2)}, at(1)),
        (key(id=2), {"name": text("two")}, at(1)),
    )
    assert harness.read(view, key(id=1), key(id=2)) == [
        (at(1), {"name": text("one"), "number": integer(2)}),
        (at(1), {"name": text("two")}),
    ]


def test_a_null_is_present_and_an_absent_feature_is_not(harness):
    view = make_view()
    harness.write(view, (key(id=1), {"name": Value(), "number": Value(null_val=0)}, at(0)))
    ((_, row),) = harness.read(view, key(id=1))
    assert row == {"name": Value(), "number": Value(null_val=0)}
    assert row["number"].WhichOneof("val") == "null_val"
    harness.write(view, (key(id=1), {"name": text("x")}, at(1)))
    assert harness.read(view, key(id=1))[0][1]["name"] == text("x")
    view.features.append(Field(name="later", dtype=Int64))
    harness.update([view])
    assert set(harness.read(view, key(id=1))[0][1]) == {"name", "number"}


def test_naive_times_are_utc_and_microseconds_are_kept(harness):
    view = make_view()
    naive = datetime(2024, 2, 29, 23, 59, 59, 999_999)
    elsewhere = datetime(1969, 1, 1, 5, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    harness.write(
        view,
        (key(id=1), {"number": integer(1)}, naive),
        (key(id=2), {"number": integer(1)}, elsewhere),
    )
    times = [time for time, _ in harness.read(view, key(id=1), key(id=2))]
    assert times == [naive.replace(tzinfo=timezone.utc), elsewhere]


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"]


@settings(max_examples=100, deadline=None)
@given(
    times=st.lists(
        st.one_of(
            st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),
            st.datetimes(
                datetime(1, 1, 2),
                datetime(9999, 12, 30),
                timezones=st.sampled_from(ZONES).map(ZoneInfo),
            ),
            st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)).map(pd.Timestamp),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_time_comes_back(tmp_path_factory, times):
    """In whatever zone it was given: as UTC, to the microsecond."""
    harness = make_harness(tmp_path_factory.mktemp("times"))
    view = make_view()
    keys = [key(id=at) for at in range(len(times))]
    harness.write(
        view, *((key, {"number": integer(1)}, time) for key, time in zip(keys, times, strict=True))
    )
    found = [time for time, _ in harness.read(view, *keys)]
    aware = [time if time.tzinfo else time.replace(tzinfo=timezone.utc) for time in times]
    assert found == [time.astimezone(timezone.utc) for time in aware]


def test_times_of_pandas(harness):
    view = make_view()
    time = pd.Timestamp("2026-05-01 12:00:00.123456789", tz="Europe/Berlin")
    harness.write(view, (key(id=1), {"number": integer(1)}, time, pd.NaT))
    expected = datetime(2026, 5, 1, 10, 0, 0, 123456, tzinfo=timezone.utc)
    assert harness.read(view, key(id=1)) == [(expected, {"number": integer(1)})]


def test_signatures_are_feasts(harness):
    looked_at = 0
    for name, theirs in inspect.getmembers(OnlineStore, inspect.isfunction):
        ours = getattr(type(harness.store), name)
        if ours is not theirs and not name.startswith("__"):
            looked_at += 1
            assert list(inspect.signature(ours).parameters) == list(
                inspect.signature(theirs).parameters
            ), name
    assert looked_at >= 10


def test_composite_string_and_bytes_keys(harness):
    view = make_view()
    keys = [
        key(user=7, item="b"),
        key(item="b", user=8),
        key(user="7", item="b"),
        key(user=Value(bytes_val=b"\xff\0"), item=Value(int32_val=-1)),
        key(user=Value(unix_timestamp_val=5), item=""),
    ]
    rows = [(entity, {"number": integer(i)}, at(0)) for i, entity in enumerate(keys)]
    harness.write(view, *rows)
    assert [row["number"].int64_val for _, row in harness.read(view, *keys)] == [0, 1, 2, 3, 4]
    # The order of the parts does not matter.
    assert harness.read(view, key(item="b", user=7)) == harness.read(view, keys[0])


def test_a_view_without_entities(harness):
    view = make_view(entity=False)
    dummy = key(__dummy_id="")
    harness.write(view, (dummy, {"number": integer(3)}, at(0)))
    assert harness.read(view, dummy) == [(at(0), {"number": integer(3)})]


def test_unknown_features_are_kept_until_the_next_apply(harness):
    view = make_view()
    harness.write(view, (key(id=1), {"stray": text("kept"), "number": integer(1)}, at(0)))
    assert harness.read(view, key(id=1))[0][1]["stray"] == text("kept")
    harness.update([view])
    assert set(harness.read(view, key(id=1))[0][1]) == {"number"}


def test_progress_counts_what_was_written(harness):
    counts = []
    rows = [(key(id=i), {"number": integer(i)}, at(0)) for i in range(20_000)]
    harness.write(make_view(), *rows, progress=counts.append)
    assert sum(counts) == len(rows)
    harness.write(make_view(), progress=counts.append)
    assert sum(counts) == len(rows)


def test_async_forms(harness):
    view = make_view()
    supported = harness.store.async_supported
    assert (supported.read, supported.write) == (True, True)

    async def work():
        await harness.store.initialize(harness.config)
        rows = [(key(id=i), {"number": integer(i)}, at(0), None) for i in range(200)]
        await harness.store.online_write_batch_async(harness.config, view, rows, None)
        keys = [key(id=i) for i in range(200)]
        few = await harness.store.online_read_async(harness.config, view, keys[:3])
        many = await harness.store.online_read_async(harness.config, view, keys, ["number"])
        await harness.store.close()
        return few, many

    few, many = asyncio.run(work())
    assert [row["number"].int64_val for _, row in few] == [0, 1, 2]
    assert [row["number"].int64_val for _, row in many] == list(range(200))


def test_expired_rows_vanish_and_do_not_block_older_events(tmp_path):
    harness = make_harness(tmp_path, key_ttl_seconds=1)
    view = vector_view()
    harness.write(view, (key(id=1), {"title": text("old"), "embedding": vector(1, 0)}, at(10)))
    assert harness.search(view, [1, 0]) == [(1, "old", 0.0)]
    sql_elsewhere(harness, "UPDATE shop_items SET expires_at = 1")
    # The vectors in memory know when the row expired; what another program writes they do not.
    harness.store = pickle.loads(pickle.dumps(harness.store))
    assert harness.read(view, key(id=1)) == [(None, None)]
    assert harness.search(view, [1, 0]) == []
    harness.write(view, (key(id=1), {"title": text("new")}, at(5)))
    assert harness.read(view, key(id=1)) == [(at(5), {"title": text("new")})]


def test_rows_are_typed_columns_to_any_sql_tool(harness):
    view = vector_view()
    harness.write(
        view,
        (key(id=1), {"title": text("a"), "embedding": vector(1, -2)}, at(0)),
        (key(id=2), {"title": text("b"), "embedding": vector(3, 4)}, at(0)),
    )
    rows = sql_elsewhere(harness, "SELECT id, title, hex(embedding) FROM shop_items WHERE id > 1")
    assert rows == [(2, "b", "0000404000008040")]
    assert sql_elsewhere(
        harness, "SELECT name, feast_type FROM _feast_vector_columns WHERE role = 'feature'"
    ) == [
        ("title", "STRING"),
        ("embedding", "FLOAT_LIST"),
    ]


# --- deleting


def test_a_deleted_view_does_not_come_back(harness):
    view = vector_view()
    harness.update([view])
    harness.write(view, (key(id=1), {"title": text("x"), "embedding": vector(1, 0)}, at(0)))
    assert len(harness.search(view, [1, 0])) == 1
    harness.update(delete=[view])
    assert harness.read(view, key(id=1)) == [(None, None)]
    assert harness.search(view, [1, 0]) == []
    harness.update([view])
    assert harness.read(view, key(id=1)) == [(None, None)]
    assert harness.search(view, [1, 0]) == []


def test_versions_are_tables_of_their_own_and_go_with_the_view(harness):
    harness.config.registry.enable_online_feature_view_versioning = True
    first, second = make_view(), make_view()
    second.current_version_number = 2
    harness.write(first, (key(id=1), {"number": integer(1)}, at(0)))
    harness.write(second, (key(id=1), {"number": integer(2)}, at(0)))
    pinned = make_view()
    pinned.projection.version_tag = 2
    assert harness.read(first, key(id=1))[0][1]["number"].int64_val == 1
    assert harness.read(pinned, key(id=1))[0][1]["number"].int64_val == 2
    harness.update(delete=[first])
    assert harness.read(first, key(id=1)) + harness.read(second, key(id=1)) == [(None, None)] * 2


def test_teardown_takes_one_project_and_leaves_the_others(tmp_path):
    ours, theirs = make_harness(tmp_path, "ours"), make_harness(tmp_path, "theirs")
    view = make_view()
    for harness in (ours, theirs):
        harness.write(view, (key(id=1), {"number": integer(1)}, at(0)))
    ours.store.write_precomputed_vector(ours.config, "service", "ours", key(id=1), b"blob")
    ours.store.teardown(ours.config, [], [])
    assert ours.read(view, key(id=1)) == [(None, None)]
    assert theirs.read(view, key(id=1)) == [(at(0), {"number": integer(1)})]
    assert sql_elsewhere(ours, "SELECT name FROM sqlite_schema WHERE name LIKE 'ours%'") == []


def test_teardown_without_a_database_makes_none(harness, tmp_path):
    harness.store.teardown(harness.config, [], [])
    assert not (tmp_path / "vector.db").exists()


def test_precomputed_vectors(harness):
    store, config = harness.store, harness.config
    blob = bytes(range(256))
    assert store.read_precomputed_vectors(config, "service", "shop", [key(id=1)]) == [None]
    store.write_precomputed_vector(config, "service", "shop", key(id=1), blob)
    read = store.read_precomputed_vectors(config, "service", "shop", [key(id=2), key(id=1)])
    assert read == [None, blob]


def test_string_keys_where_integers_are_declared_and_the_reverse(harness):
    view = make_view(key_type=ValueType.STRING)
    harness.update([view])
    harness.write(
        view,
        (key(id=5), {"number": integer(1)}, at(0)),
        (key(id="5"), {"number": text("not a number")}, at(0)),
    )
    assert harness.read(view, key(id=5), key(id="5")) == [
        (at(0), {"number": integer(1)}),
        (at(0), {"number": text("not a number")}),
    ]


def test_plan_is_empty(harness):
    assert harness.store.plan(harness.config, None) == []


def test_a_config_that_changes_in_use_is_followed(tmp_path):
    harness = make_harness(tmp_path)
    view = make_view()
    harness.write(view, (key(id=1), {"number": integer(1)}, at(0)))
    harness.config.online_store.path = str(tmp_path / "other.db")
    assert harness.read(view, key(id=1)) == [(None, None)]
    harness.config.online_store.path = str(tmp_path / "vector.db")
    assert harness.read(view, key(id=1)) != [(None, None)]


def test_a_relative_path_starts_at_the_repo(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    harness = make_harness(tmp_path)
    harness.config.online_store.path = "data/online.db"
    harness.write(make_view(), (key(id=1), {"number": integer(1)}, at(0)))
    assert (tmp_path / "data" / "online.db").exists()


def test_a_deleted_database_is_noticed(harness, tmp_path):
    view = make_view()
    harness.write(view, (key(id=1), {"number": integer(1)}, at(0)))
    for file in tmp_path.glob("vector.db*"):
        file.unlink()
    assert harness.read(view, key(id=1)) == [(None, None)]
    harness.write(view, (key(id=2), {"number": integer(2)}, at(0)))
    assert sql_elsewhere(harness, "SELECT id FROM shop_items") == [(2,)]
