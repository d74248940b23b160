"""Each limit of a call is an option, and its error says the option, its number, and what was found."""

import json

import feast_vector
import numpy as np
import pytest
from conftest import at, integer, key, make_harness, make_view, text, vector_view
from feast_vector import _core, errors, views
from feast_vector.filters import conditions
from feast_vector.limits import Limits
from pydantic import ValidationError

VIEW = make_view()
ROWS = 40


def compare(kind, feature, value):
    return {"type": kind, "key": feature, "value": value}


def filled(folder, view=VIEW, **online):
    harness = make_harness(folder, text_search_enabled=True, **online)
    name = view.features[0].name
    harness.write(view, *((key(id=i), {name: text(f"w{i} red lamp")}, at(0)) for i in range(ROWS)))
    return harness


def engine_of(harness, view=VIEW):
    return harness.store.engine(harness.config), views.declaration(harness.config, view)


CASES = {
    "query_bytes": (12, {"text": "red lamp, and"}, "the query text has 13 bytes"),
    "query_words": (2, {"text": "w1 red lamp", "match": "all"}, "has 3 different words"),
    "phrase_words": (2, {"text": "w1 red lamp", "match": "phrase"}, "the phrase has 3 words"),
    "filter_conditions": (
        2,
        {"filters": {"type": "or", "filters": [compare("gt", "number", i) for i in range(3)]}},
        "the filter has 3 conditions that cannot be put together",
    ),
    "filter_values": (
        3,
        {"filters": compare("in", "number", [1, 2, 3, 4])},
        "the filter compares with at least 4 values",
    ),
}


@pytest.mark.parametrize("option", CASES)
def test_a_limit_is_an_option_of_the_configuration(tmp_path, option):
    most, query, found = CASES[option]
    filters, match = query.get("filters"), query.get("match", "any")
    words = query.get("text", "lamp")
    filled(tmp_path, text_match=match)
    at_most = make_harness(
        tmp_path, text_search_enabled=True, text_match=match, limits={option: most + 10}
    )
    at_most.find(VIEW, text=words, filters=filters)
    limited = make_harness(
        tmp_path, text_search_enabled=True, text_match=match, limits={option: most}
    )
    with pytest.raises(errors.InvalidInputError) as caught:
        limited.find(VIEW, text=words, filters=filters)
    message = str(caught.value)
    assert found in message
    assert f"the most is {most} (`limits.{option}` in the online_store section of" in message
    assert "or raise the limit" in message
    if filters:
        with pytest.raises(errors.InvalidInputError, match=f"{most} .`limits.{option}`"):
            engine, view = engine_of(limited)
            engine.count(view, conditions(filters, limited.config.online_store.limits))


def test_words_beyond_the_limit_are_passed_over_where_any_will_do(tmp_path):
    filled(tmp_path)
    limited = make_harness(tmp_path, text_search_enabled=True, limits={"query_words": 2})
    assert limited.find_ids(VIEW, text="w3 w5 w7") == [3, 5]
    pieces = make_harness(tmp_path, text_search_enabled=True, limits={"joined_words": 2})
    whole = make_harness(tmp_path, text_search_enabled=True)
    # "w3-red" and "red-w5", rather than all three side by side.
    assert pieces.find_ids(VIEW, text="w3-red-w5") == [3]
    assert whole.find_ids(VIEW, text="w3-red-w5") == []


def test_queries_of_one_call_have_a_limit(tmp_path):
    view = vector_view()
    harness = filled(tmp_path, view, limits={"queries": 2})
    engine, declared = engine_of(harness, view)
    texts = ["red", "lamp", "w1"]
    assert engine.search(declared, top_k=1, texts=texts[:2])[0].num_rows == 2
    pattern = r"there are 3 queries, and the most is 2 \(`limits.queries`.*in several calls"
    with pytest.raises(errors.InvalidInputError, match=pattern):
        engine.search(declared, top_k=1, texts=texts)
    with pytest.raises(errors.InvalidInputError, match=pattern):
        engine.search(declared, top_k=1, feature="embedding", queries=np.ones((3, 2)))


@pytest.mark.parametrize("by", ["vector", "text", "both"])
def test_top_k_and_offset_have_a_limit_together(shop_store, by):
    shop_store.config.online_store.limits = Limits(rows=60)
    items = feast_vector.open_view(shop_store, "items")
    query = [1.0, 2.0] if by != "text" else None
    words = "item" if by != "vector" else None
    # However much is asked for, no more than the 40 rows that there are is ranked.
    for top_k, offset in ((10**9, 0), (10, 10**9), (10**9, 10**9), (2**70, 2**70)):
        found = items.search(query, top_k, text=words, offset=offset)
        assert found.num_rows == (40 if offset == 0 else 0)
    several = [words, words] if words else None
    queries = [query, query] if query else None
    assert items.search(queries, 10, text=several, offset=20).num_rows == 20
    pattern = (
        r"'items'.*ranks 80 rows: `top_k` and `offset` together are 1000000010, of 40 rows, for "
        r"each of 2 queries, and the most is 60 \(`limits.rows`"
    )
    with pytest.raises(errors.InvalidInputError, match=pattern):
        items.search(queries, 10, text=several, offset=10**9)
    few = compare("lt", "price", 2)
    assert items.search(queries, 10**9, text=several, filters=few).num_rows == 16


def test_limits_that_make_no_sense_are_refused(tmp_path):
    for limits, pattern in (
        ({"query_bytes": 0}, "query_bytes\n.*greater than or equal to 1"),
        ({"rows": -1}, "rows\n.*greater than or equal to 1"),
        ({"joined_words": 1}, "joined_words\n.*greater than or equal to 2"),
        ({"queries": True}, "queries\n.*valid integer"),
        ({"queries": 1.5}, "queries\n.*valid integer"),
        ({"queries": "many"}, "queries\n.*valid integer"),
        ({"filter_conditions": 10**6}, "filter_conditions\n.*less than or equal to 10000"),
        ({"querys": 1}, "querys\n.*Extra inputs are not permitted"),
    ):
        with pytest.raises(ValidationError, match=pattern):
            make_harness(tmp_path, limits=limits).config.online_store  # noqa: B018


def test_the_defaults_of_the_configuration_are_the_cores():
    assert Limits().of_core() == _core.default_limits()


def test_the_greatest_limits_work(tmp_path):
    """What an option may be set to, the core takes: deep filters, and queries of many words."""
    harness = filled(
        tmp_path,
        limits={
            "filter_conditions": 10_000,
            "query_words": 10_000,
            "phrase_words": 10_000,
            "joined_words": 10_000,
            "query_bytes": 10**7,
        },
    )
    nested = compare("gt", "number", -1)
    for i in range(9_998):
        kind = "and" if i % 2 else "or"
        nested = {"type": kind, "filters": [nested, compare("gt", "number", i)]}
    harness.write(VIEW, *((key(id=i), {"number": integer(10**6)}, at(1)) for i in range(ROWS)))
    engine, view = engine_of(harness)
    assert engine.count(view, conditions(nested)) == ROWS
    words = " ".join(f"w{i}" for i in range(10_000))
    assert len(harness.find(VIEW, text=words, top_k=100)) == ROWS
    assert harness.find_ids(VIEW, text=words.replace(" ", "-")) == []
    rows, how = engine.search(view, top_k=3, texts=[words], text_match="phrase", explain=True)
    assert rows.num_rows == 0
    assert json.loads(how)["texts"]
