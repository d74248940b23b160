"""The same scenarios against our store and Feast's own sqlite store, whose behaviour is the oracle.

Where Feast's store is wrong or decides otherwise, the scenario says what ours does and why.
"""

import pytest
from conftest import at, integer, key, make_harness, make_view, text, vector
from feast import Field
from feast.filter_models import ComparisonFilter
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Array, Float32, Int64, String


@pytest.fixture
def both(tmp_path):
    """Our store and Feast's."""
    return make_harness(tmp_path / "ours"), make_harness(tmp_path / "theirs", kind="sqlite")


def run(both, view, *batches):
    """Write the batches to both stores."""
    for harness in both:
        harness.update([view])
        for batch in batches:
            harness.write(view, *batch)


def read(both, view, *keys, features=None):
    """What both stores read."""
    return [harness.read(view, *keys, features=features) for harness in both]


SCENARIOS = {
    "plain rows": [
        [
            (key(id=1), {"name": text("a"), "number": integer(1)}, at(0)),
            (key(id=2), {"name": text("b"), "number": integer(2)}, at(1), at(2)),
        ]
    ],
    "an overwrite with a later event": [
        [(key(id=1), {"name": text("a"), "number": integer(1)}, at(0))],
        [(key(id=1), {"name": text("b"), "number": integer(2)}, at(1))],
    ],
    "an overwrite with the same event": [
        [(key(id=1), {"name": text("a"), "number": integer(1)}, at(0))],
        [(key(id=1), {"name": text("b"), "number": integer(2)}, at(0))],
    ],
    "nulls": [[(key(id=1), {"name": Value(), "number": integer(1)}, at(0))]],
    "features left out": [[(key(id=1), {"name": text("a")}, at(0))]],
    "a key twice in a batch": [
        [
            (key(id=1), {"name": text("a"), "number": integer(1)}, at(0)),
            (key(id=1), {"name": text("b"), "number": integer(2)}, at(0)),
        ]
    ],
    "values of other types": [[(key(id=1), {"name": integer(1), "number": text("x")}, at(0))]],
    "features that the view does not have": [
        [(key(id=1), {"name": text("a"), "number": integer(1), "more": text("z")}, at(0))]
    ],
    "an empty batch": [[]],
    "unicode": [[(key(id=1), {"name": text("naïve 🙂 \0 end"), "number": integer(-1)}, at(0))]],
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_reads_agree(both, name):
    view = make_view()
    run(both, view, *SCENARIOS[name])
    ours, theirs = read(both, view, key(id=2), key(id=1), key(id=3), key(id=1))
    assert ours == theirs


def test_keys_agree(both):
    view = make_view()
    keys = [
        key(id=0),
        key(id=-(2**63)),
        key(id="0"),
        key(id=""),
        key(id=Value(int32_val=0)),
        key(id=Value(bytes_val=b"")),
        key(b=1, a=2),
        key(a=1, b=2),
    ]
    run(both, view, [(k, {"number": integer(i)}, at(0)) for i, k in enumerate(keys)])
    ours, theirs = read(both, view, *keys)
    assert ours == theirs
    assert [row["number"].int64_val for _, row in ours] == list(range(len(keys)))


def test_deleted_views_agree(both):
    view, other = make_view(), make_view("other")
    rows = [(key(id=1), {"number": integer(1)}, at(0))]
    for harness in both:
        harness.update([view, other])
        harness.write(view, *rows)
        harness.write(other, *rows)
        harness.update([other], delete=[view])
        harness.update([view, other])
    for table in (view, other):
        ours, theirs = read(both, table, key(id=1))
        assert ours == theirs


def test_vectors_agree(both):
    view = make_view(fields={"e": Array(Float32), "name": String})
    run(both, view, [(key(id=1), {"e": vector(0.1, -2.5), "name": text("x")}, at(0))])
    ours, theirs = read(both, view, key(id=1))
    assert ours == theirs


# --- where Feast's store is wrong or decides otherwise


def test_an_older_event_does_not_overwrite(both):
    """Feast's sqlite takes the last write whatever its time: a late backfill undoes a push."""
    view = make_view()
    run(
        both,
        view,
        [(key(id=1), {"number": integer(2)}, at(2))],
        [(key(id=1), {"number": integer(1)}, at(1))],
    )
    ours, theirs = read(both, view, key(id=1))
    assert ours == [(at(2), {"number": integer(2)})]
    assert theirs == [(at(1), {"number": integer(1)})]


def test_only_requested_features_are_answered(both):
    """Feast's sqlite ignores `requested_features` (feast #1781)."""
    view = make_view()
    run(both, view, [(key(id=1), {"name": text("a"), "number": integer(1)}, at(0))])
    ours, theirs = read(both, view, key(id=1), features=["number"])
    assert ours == [(at(0), {"number": integer(1)})]
    assert theirs == [(at(0), {"name": text("a"), "number": integer(1)})]


def test_a_partial_row_has_one_event_time(both):
    """Feast's sqlite keeps a time for each feature and answers with that of the last it reads."""
    view = make_view()
    run(
        both,
        view,
        [(key(id=1), {"name": text("a"), "number": integer(1)}, at(0))],
        [(key(id=1), {"name": text("b")}, at(5))],
    )
    ours, theirs = read(both, view, key(id=1))
    assert ours == [(at(5), {"name": text("b"), "number": integer(1)})]
    assert theirs[0][1] == ours[0][1]


def test_removed_features_are_gone(both):
    """Feast's sqlite goes on answering with features that the view no longer has."""
    view, edited = make_view(), make_view(fields={"number": Int64})
    run(both, view, [(key(id=1), {"name": text("a"), "number": integer(1)}, at(0))])
    for harness in both:
        harness.update([edited])
    ours, theirs = read(both, edited, key(id=1))
    assert ours == [(at(0), {"number": integer(1)})]
    assert theirs == [(at(0), {"name": text("a"), "number": integer(1)})]


def test_a_missing_table_reads_as_missing(both):
    """Feast's sqlite raises sqlite3.OperationalError."""
    ours, theirs = both
    assert ours.read(make_view("nowhere"), key(id=1)) == [(None, None)]
    with pytest.raises(Exception, match="no such table"):
        theirs.read(make_view("nowhere"), key(id=1))


def test_key_encoding_agrees_with_feasts():
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast_vector import _core

    keys = [
        key(id=5),
        key(id="é\0"),
        key(b=Value(int32_val=-7), a=Value(bytes_val=b"\xff"), c=Value(unix_timestamp_val=2**62)),
        key(Ä="x", z="y", aa="z"),
        key(__dummy_id=""),
    ]
    for entity in keys:
        assert _core.encode_entity_key(entity.SerializeToString()) == serialize_entity_key(
            entity, entity_key_serialization_version=3
        )


# --- retrieval

TEXTS = {
    1: "a red apple",
    2: "green apples and pears",
    3: "red red wine",
    4: "white wine",
    5: "nothing of the kind",
    6: "more words",
}


@pytest.fixture
def searching(tmp_path):
    """Both stores with text search, filled with the same texts."""
    ours = make_harness(tmp_path / "ours", text_search_enabled=True)
    theirs = make_harness(
        tmp_path / "theirs",
        kind="sqlite",
        text_search_enabled=True,
        enable_openai_compatible_store=True,
    )
    view = make_view(fields={"name": String, "number": Int64})
    # Feast's store wants a vector field, whatever is searched.
    view.features.append(Field(name="embedding", dtype=Array(Float32), vector_index=True))
    for harness in (ours, theirs):
        harness.update([view])
        rows = (
            (key(id=i), {"name": text(t), "number": integer(i)}, at(i)) for i, t in TEXTS.items()
        )
        harness.write(view, *rows)
    return ours, theirs, view


@pytest.mark.parametrize("word", ["wine", "red", "pears", "zzz"])
def test_text_search_finds_and_ranks_what_feasts_does(searching, word):
    ours, theirs, view = searching
    expected = theirs.find(view, text=word, features=["name", "number"])
    found = ours.find(view, text=word, features=["name", "number"])
    assert [entity for entity, _ in found] == [entity for entity, _ in expected]
    for (_, our_row), (_, their_row) in zip(found, expected, strict=True):
        assert our_row["name"] == their_row["name"]
        assert our_row["number"] == their_row["number"]


def test_text_search_where_feasts_fails(searching):
    """Feast hands what people type to FTS5 as syntax, and filters what it has already cut off."""
    ours, theirs, view = searching
    for query in ("what's red", "red (wine", "a-b red", '"red'):
        with pytest.raises(Exception, match=r"fts5|syntax|no such column|unterminated"):
            theirs.find(view, text=query)
        assert set(ours.find_ids(view, text=query)) >= {3}
    wanted = ComparisonFilter(type="eq", key="number", value=3)
    assert theirs.find(view, text="wine", filters=wanted, top_k=1) == []
    assert ours.find_ids(view, text="wine", filters=wanted, top_k=1) == [3]
