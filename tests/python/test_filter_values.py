"""Filters: what values of each type compare with, shapes, and what is an error."""

import datetime as dt
import math
import uuid
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from conftest import at, integer, key, make_harness, sql_elsewhere, text, vector
from feast.filter_models import CompoundFilter
from feast.protos.feast.types.Value_pb2 import (
    BoolList,
    FloatList,
    Int64List,
    Map,
    StringList,
    StringSet,
    Value,
)
from feast.types import String
from feast_vector import errors
from test_filters import VIEW, compare, passing, view_with_vectors, write


@pytest.mark.parametrize(
    ("name", "kind", "value", "expected"),
    [
        # A Float32 feature is compared with the value as Float32 has it.
        ("f32", "eq", 0.1, [1]),
        ("f32", "gt", 0.1, [2]),
        ("f32", "in", [0.1, 7], [1]),
        ("f32", "eq", np.float32(0.1), [1]),
        # Text is a number, where numbers are compared.
        ("i64", "eq", "12", [1]),
        ("i64", "lt", "100", [1]),
        ("flag", "eq", "true", [1]),
        ("flag", "eq", 1, [1]),
        ("flag", "lt", True, [2]),
        ("flag", "gte", 0, [1, 2]),
        # Times.
        ("when", "eq", dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc), [1]),
        ("when", "eq", dt.datetime(2026, 1, 1), [1]),
        ("when", "lt", dt.datetime(2026, 1, 1, 0, 0, 0, 1), [1]),
        ("when", "gte", "2026-01-01T01:00:00+01:00", [1, 2]),
        ("when", "gt", "2026-01-01", [2]),
        ("when", "eq", np.datetime64("2026-01-01"), [1]),
        ("when", "eq", dt.date(2026, 1, 1), [1]),
        ("when", "gt", 1767225600, [2]),
        # Decimals are numbers.
        ("price", "eq", Decimal("9.5"), [1]),
        ("price", "eq", 9.5, [1]),
        ("price", "lt", 10, [1]),
        ("price", "gt", "9.9", [2]),
        # UUIDs are compared without regard to case.
        ("uid", "eq", uuid.UUID(int=10), [1]),
        ("uid", "in", [str(uuid.UUID(int=10)).upper()], [1]),
        # Join keys.
        ("id", "gt", 1, [2, 3]),
        ("id", "in", [1, 99], [1]),
        ("raw", "eq", bytearray(b"a"), [1]),
        # Bounds of what a column can hold.
        ("i64", "lt", 2**70, [1, 2]),
        ("i64", "gt", -(2**70), [1, 2]),
        ("i64", "in", [], []),
        ("i64", "nin", [], [1, 2]),
    ],
)
def test_values_are_compared_as_the_column_is_typed(harness, name, kind, value, expected):
    write(
        harness,
        {
            1: {
                "f32": Value(float_val=0.1),
                "i64": integer(12),
                "flag": Value(bool_val=True),
                "when": Value(unix_timestamp_val=1767225600),
                "price": Value(decimal_val="9.50"),
                "uid": Value(uuid_val=str(uuid.UUID(int=10))),
                "raw": Value(bytes_val=b"a"),
            },
            2: {
                "f32": Value(float_val=0.2),
                "i64": integer(100),
                "flag": Value(bool_val=False),
                "when": Value(unix_timestamp_val=1767225601),
                "price": Value(decimal_val="10"),
                "uid": Value(uuid_val=str(uuid.UUID(int=11))),
                "raw": Value(bytes_val=b"b"),
            },
            3: {},
        },
    )
    assert passing(harness, {"type": kind, "key": name, "value": value}) == expected


def test_event_and_created_timestamps(harness):
    for i in range(4):
        row = {"embedding": vector(i)}
        harness.write(VIEW, (key(id=i), row, at(i), *([at(i + 60)] if i < 3 else [])))
    assert passing(harness, compare("gte", "event_timestamp", at(2))) == [2, 3]
    assert passing(harness, compare("lt", "event_timestamp", at(1).isoformat())) == [0]
    assert passing(harness, compare("eq", "event_timestamp", at(1).timestamp())) == [1]
    assert passing(harness, compare("ne", "created_timestamp", at(61))) == [0, 2]


@pytest.mark.parametrize(
    ("name", "kind", "value", "expected"),
    [
        ("tags", "contains", "a", [1]),
        ("tags", "contains", "A", []),
        ("tags", "any_of", ["b", "c"], [1, 2]),
        ("tags", "any_of", [], []),
        ("codes", "contains", 2**53 + 1, [1]),
        ("codes", "any_of", [5.0, "6"], [2]),
        ("weights", "contains", 0.1, [1]),
        ("flags", "contains", True, [1]),
        ("labels", "contains", "x", [1]),
    ],
)
def test_lists(harness, name, kind, value, expected):
    write(
        harness,
        {
            1: {
                "tags": Value(string_list_val=StringList(val=["a", "b"])),
                "codes": Value(int64_list_val=Int64List(val=[2**53 + 1])),
                "weights": Value(float_list_val=FloatList(val=[0.1, 9])),
                "flags": Value(bool_list_val=BoolList(val=[False, True])),
                "labels": Value(string_set_val=StringSet(val=["x"])),
            },
            2: {
                "tags": Value(string_list_val=StringList(val=["c"])),
                "codes": Value(int64_list_val=Int64List(val=[5, 2**53])),
                "flags": Value(bool_list_val=BoolList(val=[False])),
            },
            3: {"tags": Value(string_list_val=StringList()), "labels": Value()},
            4: {"tags": text("a")},
        },
    )
    assert passing(harness, {"type": kind, "key": name, "value": value}) == expected


# --- shapes


def test_empty_combinations(harness):
    write(harness, [{"i64": integer(i)} for i in range(3)])
    assert passing(harness, CompoundFilter(type="and", filters=[])) == [0, 1, 2]
    with pytest.raises(errors.InvalidInputError, match="an 'or' without filters") as caught:
        passing(harness, CompoundFilter(type="or", filters=[]))
    assert caught.value.kind == "invalid_filter"


def test_two_hundred_nested_levels(harness):
    write(harness, [{"i64": integer(i)} for i in range(10)])
    node = compare("gte", "i64", 3)
    for level in range(200):
        kind = "and" if level % 2 else "or"
        node = CompoundFilter(
            type=kind, filters=[node, compare("lt", "i64", 0 if level % 2 == 0 else 8)]
        )
    assert passing(harness, node) == [3, 4, 5, 6, 7]
    node = {"type": "eq", "key": "i64", "value": 4}
    for _ in range(20_000):
        node = {"type": "and", "filters": [node]}
    assert passing(harness, node) == [4]


@pytest.mark.parametrize("name", ["i64", "name", "f64"])
def test_ten_thousand_values(harness, name):
    wrap = {
        "i64": integer,
        "name": lambda i: text(str(i)),
        "f64": lambda i: Value(double_val=i / 7),
    }
    write(harness, [{name: wrap[name](i)} for i in range(300)])
    plain = {"i64": int, "name": str, "f64": lambda i: i / 7}[name]
    values = [plain(i) for i in range(100, 10_100)]
    assert passing(harness, compare("in", name, values)) == list(range(100, 300))
    assert passing(harness, compare("nin", name, values)) == list(range(100))
    alternatives = [compare("eq", name, value) for value in values[:3000]]
    assert passing(harness, CompoundFilter(type="or", filters=alternatives)) == list(
        range(100, 300)
    )


def test_names_and_values_cannot_inject_sql(harness):
    hostile = 'x" = 1; DROP TABLE shop_items; --'
    view = view_with_vectors({hostile: String, "name": String})
    write(harness, [{hostile: text("' OR 1=1 --"), "name": text("plain")}, {}], view)
    assert passing(harness, compare("eq", hostile, "' OR 1=1 --"), view) == [0]
    assert passing(harness, compare("eq", "name", "' OR ''='"), view) == []
    with pytest.raises(errors.NotFoundError):
        passing(harness, compare("eq", "1=1) --", 1), view)
    assert sql_elsewhere(harness, "SELECT count(*) FROM shop_items") == [(2,)]


def test_filters_apply_before_ranking(harness):
    """As many rows as pass, up to top_k, however far away they are; the nearest of them first."""
    rows = 3000
    write(harness, [{"i64": integer(i % 100)} for i in range(rows)])
    for value, top_k in ((99, 5), (99, 100), (3, 30)):
        expected = [i for i in range(rows) if i % 100 == value][:top_k]
        found = harness.find_ids(VIEW, [0.0], filters=compare("eq", "i64", value), top_k=top_k)
        assert found == expected
    assert harness.find_ids(VIEW, [0.0], filters=compare("eq", "i64", 100)) == []


def test_no_switch_is_needed_and_feasts_is_accepted(tmp_path):
    for switch in ({}, {"enable_openai_compatible_store": True}):
        harness = make_harness(tmp_path, **switch)
        write(harness, [{"i64": integer(i)} for i in range(3)])
        assert passing(harness, compare("gt", "i64", 0)) == [1, 2]


def test_rows_without_a_value(harness):
    write(harness, [{"i64": integer(1), "name": text("a")}, {"i64": Value()}, {"name": text("b")}])
    empty = {"type": "eq", "key": "i64", "value": None}
    assert passing(harness, empty) == [1, 2]
    # Feast's own model carries a null as well.
    assert passing(harness, compare("ne", "i64", None)) == [0]
    assert passing(harness, compare("in", "i64", [1, None])) == [0, 1, 2]
    assert passing(harness, compare("in", "i64", [None])) == [1, 2]
    assert passing(harness, compare("nin", "i64", [5, None])) == [0]
    assert passing(harness, {"type": "eq", "key": "tags", "value": None}) == [0, 1, 2]
    assert passing(harness, {"type": "eq", "key": "created_timestamp", "value": None}) == [0, 1, 2]
    assert passing(harness, {"type": "eq", "key": "event_timestamp", "value": None}) == []


def test_not_passes_whatever_its_filter_does_not(harness):
    write(harness, [{"i64": integer(i)} for i in range(4)] + [{}])
    one = {"type": "eq", "key": "i64", "value": 1}
    assert passing(harness, {"type": "not", "filter": one}) == [0, 2, 3, 4]
    assert passing(harness, {"type": "not", "filter": {"type": "not", "filter": one}}) == [1]
    others = {"type": "not", "filter": {"type": "and", "filters": []}}
    assert passing(harness, others) == []
    both = {"type": "and", "filters": [{"type": "not", "filter": one}, compare("ne", "i64", None)]}
    assert passing(harness, both) == [0, 2, 3]


def test_many_conditions_that_are_one_set_are_one(harness):
    rows = 300
    write(harness, [{"i64": integer(i), "name": text(f"n{i}")} for i in range(rows)])
    either = {"type": "or", "filters": [compare("eq", "i64", i * 3) for i in range(20_000)]}
    assert passing(harness, either) == list(range(0, rows, 3))
    neither = {"type": "and", "filters": [compare("ne", "i64", i * 3) for i in range(20_000)]}
    assert passing(harness, neither) == [i for i in range(rows) if i % 3]
    nested = compare("eq", "i64", 0)
    for i in range(1, 3000):
        nested = {"type": "or", "filters": [nested, compare("eq", "name" if i % 2 else "i64", i)]}
    assert passing(harness, nested) == list(range(0, rows, 2))
    negated = {
        "type": "and",
        "filters": [{"type": "not", "filter": part} for part in either["filters"]],
    }
    assert passing(harness, negated) == [i for i in range(rows) if i % 3]
    ranges = [compare("gt", "i64", i) for i in range(1025)]
    with pytest.raises(
        errors.InvalidInputError, match=r"1025 conditions .*the most is 1024 "
    ) as caught:
        passing(harness, {"type": "or", "filters": ranges})
    assert caught.value.kind == "invalid_filter"


# --- errors


@pytest.mark.parametrize(
    ("wrong", "pattern"),
    [
        (
            compare("eq", "prise", 1),
            r"has nothing named 'prise' to filter on; it has: id, i32, .*price.*event_timestamp",
        ),
        (compare("in", "i64", 5), r"filter on 'i64': 'in' needs a list of values, and 5 is none"),
        (compare("nin", "name", "abc"), r"'nin' needs a list of values, and 'abc' is none"),
        (compare("eq", "i64", [1, 2]), r"'eq' compares with one value; for several use 'in'"),
        (
            compare("gt", "i64", None),
            r"filter on 'i64' \(INT64\): 'gt' compares with nothing where",
        ),
        ({"type": "any_of", "key": "tags", "value": ["a", None]}, r"for rows without a value use"),
        (
            compare("eq", "when", pd.NaT),
            r"filter on 'when': NaT is no time; for rows without a val",
        ),
        (compare("gt", "event_timestamp", np.datetime64("NaT")), r"is no time; for rows without"),
        (
            compare("in", "i64", list(range(100_001))),
            r"at least 100001 values, and the most is 100000",
        ),
        ({"type": "not", "filters": []}, r"has no 'filter'"),
        (compare("eq", "i64", math.nan), r"filter on 'i64' \(INT64\): the value is NaN"),
        (compare("eq", "i64", {"a": 1}), r"values of type dict compare with nothing"),
        (compare("gt", "tags", "a"), r"filter on 'tags' \(STRING_LIST\): 'gt' compares single va"),
        (compare("gt", "raw", b"a"), r"'raw' \(BYTES\): 'gt' orders values, which has no meaning"),
        (compare("lte", "uid", "a"), r"'uid' \(UUID\): 'lte' orders values"),
        (compare("eq", "tree", 1), r"values of type MAP cannot be compared, so 'tree' cannot be"),
        (compare("gt", "when", "noon"), r"'when' \(UNIX_TIMESTAMP\): 'noon' is no time; write it"),
        (compare("gt", "event_timestamp", "x"), r"'event_timestamp' \(a timestamp\): 'x' is no ti"),
        (compare("eq", "name", dt.datetime(2026, 1, 1)), r"the value is a time, and 'name' holds"),
        ({"type": "contains", "key": "i64", "value": 1}, r"'contains' looks into lists, and this"),
        ({"type": "like", "key": "i64", "value": 1}, r"unknown filter type 'like'; use eq, ne,"),
        ({"type": "eq", "value": 1}, r"has no 'key'"),
        ({"type": "and", "filters": 5}, r"an 'and' needs a list of filters, and 5 is none"),
        ("price > 5", r"has no 'type'"),
    ],
)
def test_wrong_filters_are_said_to_be(harness, wrong, pattern):
    write(harness, [{"i64": integer(1), "tree": Value(map_val=Map())}])
    with pytest.raises((errors.InvalidInputError, errors.NotFoundError), match=pattern) as caught:
        harness.find(VIEW, [0.0], filters=wrong)
    assert caught.value.kind in ("invalid_filter", "unknown_feature")
    assert not any(dump in str(caught.value) for dump in ("Some(", "Err(", "Literal"))
    assert passing(harness, compare("eq", "i64", 1)) == [0]
