"""Vector and text together, and rows past their view's ttl."""

import math
from datetime import datetime, timedelta, timezone

import pytest
from conftest import at, integer, key, make_harness, text, vector, vector_view
from feast import Field
from feast.types import Int64
from feast_vector import errors
from hypothesis import given, settings
from hypothesis import strategies as st

VIEW = vector_view(metric="L2")
VIEW.features.append(Field(name="number", dtype=Int64))


def write(harness, rows):
    """Rows of (title, point); a point of None is no vector."""
    for i, (title, point) in enumerate(rows):
        row = {"title": text(title), "number": integer(i % 3)}
        if point is not None:
            row["embedding"] = vector(*point)
        harness.write(VIEW, (key(id=i), row, at(0)))


def find(harness, query, words, **options):
    """Ids with (distance, text_rank), best first."""
    return {
        entity.entity_values[0].int64_val: (
            row["distance"].float_val if "distance" in row else None,
            row["text_rank"].float_val if "text_rank" in row else None,
        )
        for entity, row in harness.find(VIEW, query, words, top_k=1000, **options)
    }


POINTS = st.one_of(st.none(), st.tuples(st.integers(-3, 3), st.integers(-3, 3)))
ROWS = st.lists(
    st.tuples(st.sampled_from(["red", "red red fig", "blue", "fig"]), POINTS), max_size=9
)


@settings(max_examples=80, deadline=None)
@given(
    rows=ROWS,
    query=st.tuples(st.integers(-3, 3), st.integers(-3, 3)),
    k=st.sampled_from([0, 1, 60]),
    weights=st.tuples(st.sampled_from([0, 1, 2.5]), st.sampled_from([0, 1, 0.5])),
    number=st.sampled_from([None, 1]),
)
def test_fusion_is_reciprocal_rank(tmp_path_factory, rows, query, k, weights, number):
    harness = make_harness(
        tmp_path_factory.mktemp("hybrid"),
        text_search_enabled=True,
        durability="off",
        rrf_k=k,
        vector_weight=weights[0],
        text_weight=weights[1],
    )
    write(harness, rows)
    filters = None if number is None else {"type": "eq", "key": "number", "value": number}
    found = find(harness, list(query), "red fig", filters=filters)
    by_vector = find(harness, list(query), None, filters=filters)
    by_text = find(harness, None, "red fig", filters=filters)
    scores = {}
    for weight, ranking in zip(weights, (by_vector, by_text), strict=True):
        for rank, i in enumerate(ranking, 1):
            scores[i] = scores.get(i, 0) + weight / (k + rank)
    expected = sorted(scores, key=lambda i: (-scores[i], i))
    assert [scores[i] for i in found] == pytest.approx([scores[i] for i in expected])
    assert set(found) == set(expected)
    # Every row has both, whichever way it was found.
    for i, (distance, rank) in found.items():
        point = rows[i][1]
        if point is None:
            assert distance is None
        else:
            assert distance == pytest.approx(math.dist(query, point), abs=1e-5)
        assert rank == by_text.get(i, (None, 0.0))[1]


@pytest.fixture
def both(tmp_path):
    """A store with text search, and three rows."""
    harness = make_harness(tmp_path, text_search_enabled=True)
    write(harness, [("red apple", (0, 0)), ("green apple", (1, 0)), ("red wine", (9, 9))])
    return harness


def test_both_agreeing_wins(both):
    assert list(find(both, [0, 0], "red")) == [0, 2, 1]
    assert list(find(both, [9, 9], "green")) == [1, 2, 0]


def test_texts_that_match_nothing_leave_the_ranking_by_vector(both):
    assert find(both, [0, 0], "zzz") == {
        0: (0.0, 0.0),
        1: (1.0, 0.0),
        2: (pytest.approx(math.hypot(9, 9)), 0.0),
    }
    assert list(find(both, [0, 0], "")) == [0, 1, 2]


def test_hybrid_without_a_vector_field(both):
    from conftest import make_view

    view = make_view("plain")
    with pytest.raises(errors.InvalidInputError, match="'plain' has no vector field"):
        both.find(view, [1.0], text="red")


def test_neither(both):
    with pytest.raises(errors.InvalidInputError, match="pass a query vector, a query text, or bot"):
        both.find(VIEW)


# --- ttl


def aged(harness, **ages):
    """A view with a ttl of a day, and rows of these ages in hours."""
    view = vector_view(metric="L2")
    view.ttl = timedelta(days=1)
    now = datetime.now(timezone.utc)
    for i, (title, hours) in enumerate(ages.items()):
        row = {"title": text(f"{title} word"), "embedding": vector(i, 0)}
        harness.write(view, (key(id=i), row, now - timedelta(hours=hours)))
    return view


def test_rows_past_their_ttl_are_not_found(tmp_path):
    harness = make_harness(tmp_path, text_search_enabled=True, enforce_ttl=True)
    view = aged(harness, old=25, fresh=1, future=-5)
    for query, words in (([0, 0], None), (None, "word"), ([0, 0], "word")):
        assert sorted(harness.find_ids(view, query, words)) == [1, 2]
    assert harness.read(view, key(id=0)) == [(None, None)]
    asked_for = make_harness(tmp_path, text_search_enabled=True)
    assert asked_for.read(view, key(id=0))[0][1]["title"] == text("old word")
    for query, words in (([0, 0], None), (None, "word"), ([0, 0], "word")):
        assert sorted(asked_for.find_ids(view, query, words)) == [0, 1, 2]
    view.ttl = timedelta(0)
    assert sorted(harness.find_ids(view, [0, 0])) == [0, 1, 2]


def test_a_row_that_was_past_its_ttl_is_found_when_written_anew(tmp_path):
    harness = make_harness(tmp_path, enforce_ttl=True)
    view = aged(harness, old=25)
    assert harness.find_ids(view, [0, 0]) == []
    row = {"title": text("new"), "embedding": vector(0, 0)}
    harness.write(view, (key(id=0), row, datetime.now(timezone.utc)))
    assert harness.find_ids(view, [0, 0]) == [0]


def test_as_many_live_rows_as_asked_for_come_back(tmp_path):
    harness = make_harness(tmp_path, enforce_ttl=True)
    view = vector_view(metric="L2")
    view.ttl = timedelta(days=1)
    now = datetime.now(timezone.utc)
    harness.write(
        view,
        *(
            (
                key(id=i),
                {"title": text(""), "embedding": vector(i, 0)},
                now - timedelta(hours=30 if i < 500 else 1),
            )
            for i in range(600)
        ),
    )
    assert harness.find_ids(view, [0, 0], top_k=7) == list(range(500, 507))
