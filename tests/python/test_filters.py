"""Filters: what passes, what does not, and what is an error."""

import itertools
import math
import operator
import struct
import time
import uuid
from decimal import Decimal

import pytest
from conftest import at, integer, key, make_harness, make_view, text, vector
from feast import Field
from feast.filter_models import ComparisonFilter, CompoundFilter
from feast.infra.online_stores.sqlite import SqliteFilterTranslator
from feast.protos.feast.types.Value_pb2 import (
    BoolList,
    FloatList,
    Int64List,
    StringList,
    StringSet,
    Value,
)
from feast.types import (
    Array,
    Bool,
    Bytes,
    Float32,
    Float64,
    Int32,
    Int64,
    Json,
    Set,
    String,
    UnixTimestamp,
    Uuid,
)
from feast.types import Decimal as DecimalType
from feast.types import Map as MapType
from feast_vector import _core
from feast_vector.filters import conditions
from hypothesis import given, settings
from hypothesis import strategies as st

FIELDS = {
    "i32": Int32,
    "i64": Int64,
    "f32": Float32,
    "f64": Float64,
    "flag": Bool,
    "name": String,
    "raw": Bytes,
    "when": UnixTimestamp,
    "uid": Uuid,
    "price": DecimalType,
    "doc": Json,
    "tags": Array(String),
    "codes": Array(Int64),
    "weights": Array(Float32),
    "flags": Array(Bool),
    "labels": Set(String),
    "tree": MapType,
}


def view_with_vectors(fields=None):
    view = make_view(fields=fields or FIELDS)
    view.features.append(
        Field(name="embedding", dtype=Array(Float32), vector_index=True, vector_search_metric="L2")
    )
    return view


VIEW = view_with_vectors()


def compare(kind, name, value):
    return ComparisonFilter(type=kind, key=name, value=value)


def passing(harness, filters, view=VIEW):
    """The ids of the rows that pass, found by a search for more rows than there are."""
    found = harness.find_ids(view, query=[0.0], filters=filters, top_k=1000)
    identity = _core.View("shop", view.name)
    counted = harness.store.engine(harness.config).count(identity, conditions(filters))
    assert counted == len(found)
    return sorted(found)


def write(harness, rows, view=VIEW, time=0):
    harness.write(
        view,
        *(
            (key(id=i), {**row, "embedding": vector(i)}, at(time))
            for i, row in (rows.items() if isinstance(rows, dict) else enumerate(rows))
        ),
    )


# --- against a straightforward evaluation in Python

OPERATORS = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
EQUALITY = ("eq", "ne", "in", "nin")
LISTS = ("contains", "any_of")


def f32(number):
    return struct.unpack("f", struct.pack("f", number))[0]


def uuids(number):
    return str(uuid.UUID(int=number))


def many(values):
    return st.sampled_from(values)


# Column: (values, how a value is written, which operators order it).
NUMBERS = [-(2**31), -3, -1, 0, 1, 2, 7, 2**31 - 1]
WIDE = [-(2**63), -(2**53) - 1, -5, 0, 3, 2**53, 2**53 + 1, 2**63 - 1]
REALS = [-1e300, -2.5, -0.0, 0.0, 0.1, 0.5, 3.0, 2.0**53, 1e300, math.inf, -math.inf]
SINGLES = [f32(x) for x in (-2.5, -0.0, 0.1, 0.5, 3.0, 16777216.0)]
NAMES = ["", "a", "B", "b", "ab", "é", "10", "9", "日本", "x'; DROP TABLE shop_items; --"]
COLUMNS = {
    "i32": (NUMBERS, lambda v: Value(int32_val=v), True),
    "i64": (WIDE, lambda v: Value(int64_val=v), True),
    "f32": (SINGLES, lambda v: Value(float_val=v), True),
    "f64": (REALS, lambda v: Value(double_val=v), True),
    "flag": ([False, True], lambda v: Value(bool_val=v), True),
    "name": (NAMES, lambda v: Value(string_val=v), True),
    "raw": ([b"", b"\0", b"ab", b"\xff"], lambda v: Value(bytes_val=v), False),
    "when": ([0, 1, 1_700_000_000], lambda v: Value(unix_timestamp_val=v), True),
    "uid": ([uuids(1), uuids(2**100)], lambda v: Value(uuid_val=v), False),
    "price": (
        [Decimal(x) for x in ("-1", "0.10", "0.1", "9", "10", "1E+3")],
        lambda v: Value(decimal_val=str(v)),
        True,
    ),
    "doc": (['{"a":1}', "[]"], lambda v: Value(json_val=v), False),
}


# Lists and sets: (elements, how a value is written).
COLLECTIONS = {
    "tags": (NAMES, lambda v: Value(string_list_val=StringList(val=v))),
    "codes": (WIDE, lambda v: Value(int64_list_val=Int64List(val=v))),
    "weights": (SINGLES, lambda v: Value(float_list_val=FloatList(val=v))),
    "flags": ([False, True], lambda v: Value(bool_list_val=BoolList(val=v))),
    "labels": (NAMES, lambda v: Value(string_set_val=StringSet(val=v))),
}


def leaf():
    def of(name):
        if name in COLLECTIONS:
            values, kinds = COLLECTIONS[name][0], many(LISTS)
        else:
            values, _, ordered = COLUMNS[name]
            kinds = many([*OPERATORS, "in", "nin"] if ordered else EQUALITY)
        one = many(values)
        # Nulls are compared with where that says something.
        also = st.one_of(one, st.none())

        def value(kind):
            if kind in ("in", "nin"):
                return st.lists(also, max_size=4)
            if kind == "any_of":
                return st.lists(one, max_size=4)
            return also if kind in ("eq", "ne") else one

        kinds = st.one_of(kinds, many(["eq", "ne"])) if name in COLUMNS else kinds
        compared = kinds.flatmap(
            lambda kind: st.builds(lambda value: (kind, name, value), value(kind))
        )
        nulls = st.builds(lambda kind: (kind, name, None), many(["eq", "ne"]))
        return st.one_of(compared, compared, nulls)

    return many([*COLUMNS, *COLLECTIONS]).flatmap(of)


FILTERS = st.recursive(
    leaf(),
    lambda inner: st.one_of(
        st.tuples(many(["and", "or"]), st.lists(inner, min_size=1, max_size=3)),
        st.tuples(st.just("not"), inner),
    ),
    max_leaves=6,
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            **{n: st.one_of(st.none(), many(values)) for n, (values, _, _) in COLUMNS.items()},
            **{
                n: st.one_of(st.none(), st.lists(many(values), max_size=3))
                for n, (values, _) in COLLECTIONS.items()
            },
        },
    ),
    max_size=12,
)


def as_feast(node):
    if node[0] == "not":
        return {"type": "not", "filter": as_feast(node[1])}
    if len(node) == 2:
        parts = [as_feast(part) for part in node[1]]
        if any(isinstance(part, dict) for part in parts):
            return {"type": node[0], "filters": parts}
        return CompoundFilter(type=node[0], filters=parts)
    kind, name, value = node
    # Feast's own filters know nothing of lists.
    return {"type": kind, "key": name, "value": value} if kind in LISTS else compare(*node)


def passes(node, row):
    if node[0] == "not":
        return not passes(node[1], row)
    if len(node) == 2:
        return (all if node[0] == "and" else any)(passes(part, row) for part in node[1])
    kind, name, value = node
    stored = row.get(name)
    if kind in ("eq", "ne") and value is None:
        return (stored is None) == (kind == "eq")
    if stored is None:
        return kind == "in" and None in value
    if kind in LISTS:
        return bool(set(stored) & ({value} if kind == "contains" else set(value)))
    if kind in ("in", "nin"):
        return (stored in value) == (kind == "in")
    return OPERATORS[kind](stored, value)


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, changed=ROWS, node=FILTERS)
def test_filters_agree_with_python(tmp_path_factory, rows, changed, node):
    harness = make_harness(tmp_path_factory.mktemp("filters"), durability="off")

    def written(rows):
        return [
            {
                name: Value() if value is None else {**COLUMNS, **COLLECTIONS}[name][1](value)
                for name, value in row.items()
            }
            for row in rows
        ]

    write(harness, written(rows))
    expected = [i for i, row in enumerate(rows) if passes(node, row)]
    assert passing(harness, as_feast(node)) == expected
    # What is resident follows the writes.
    write(harness, written(changed), time=1)
    now = [
        {**old, **(new or {})} for old, new in itertools.zip_longest(rows, changed, fillvalue={})
    ]
    assert passing(harness, as_feast(node)) == [i for i, row in enumerate(now) if passes(node, row)]


# --- nulls, and values of other types than their columns


MIXED = [
    {"i64": Value(int64_val=5), "name": text("5")},
    {"i64": text("5"), "name": integer(5)},
    {"i64": Value(double_val=5.0), "name": Value(double_val=5.0)},
    {"i64": Value(double_val=5.5), "name": text("five")},
    {"i64": Value(bool_val=True), "name": Value(bool_val=True)},
    {"i64": Value(), "name": Value()},
    {"i64": Value(null_val=0)},
    {},
    {"i64": Value(double_val=math.nan), "name": Value(bytes_val=b"5")},
    {"i64": integer(-7), "name": text("")},
    {"i64": integer(1), "name": text("True")},
]


@pytest.mark.parametrize("name", ["i64", "name"])
@pytest.mark.parametrize("kind", [*OPERATORS, "in", "nin"])
@pytest.mark.parametrize("value", [5, 5.0, 5.5, True, "5", "five", "", -1])
def test_mixed_types_are_feasts(tmp_path, name, kind, value):
    """Feast's own translator says what passes, over a table that Feast's own store wrote.

    Two things are ours. Text is no way to compare numbers: where Feast would compare their digits,
    text is taken for the number that it reads as, and is otherwise unequal and in no order. And a
    number that was written as text stays text.
    """
    ours = make_harness(tmp_path / "ours")
    theirs = make_harness(tmp_path / "theirs", kind="sqlite", enable_openai_compatible_store=True)
    view = make_view(fields={"i64": Int64, "name": String})
    with_vectors = view_with_vectors({"i64": Int64, "name": String})
    theirs.update([view])
    theirs.write(view, *((key(id=i), row, at(0)) for i, row in enumerate(MIXED)))
    write(ours, MIXED, with_vectors)
    wanted = compare(kind, name, [value, value] if kind in ("in", "nin") else value)
    clause, parameters = SqliteFilterTranslator("shop_items").translate(wanted)
    connection = theirs.store._get_conn(theirs.config)
    found = connection.execute(
        f"SELECT DISTINCT entity_key FROM shop_items WHERE {clause}", parameters
    ).fetchall()
    from feast.infra.key_encoding_utils import deserialize_entity_key

    feasts = sorted(
        deserialize_entity_key(row[0], entity_key_serialization_version=3)
        .entity_values[0]
        .int64_val
        for row in found
    )
    answer = passing(ours, wanted, with_vectors)
    if not isinstance(value, str):
        assert answer == feasts
        return
    # Rows whose cell is a number or a bool, where Feast would compare text.
    numeric = {
        i
        for i, row in enumerate(MIXED)
        if row.get(name, Value()).WhichOneof("val") in ("int64_val", "double_val", "bool_val")
    }
    assert [i for i in answer if i not in numeric] == [i for i in feasts if i not in numeric]
    numbers = {
        i: row[name].int64_val or row[name].double_val or row[name].bool_val
        for i, row in enumerate(MIXED)
        if i in numeric
    }

    def ours_says(number):
        if math.isnan(number):
            return False
        if name == "i64" and value == "5":
            other = 5
        elif kind in OPERATORS and kind not in ("eq", "ne"):
            return False
        else:
            return kind in ("ne", "nin")
        if kind in ("in", "nin"):
            return (number == other) == (kind == "in")
        return OPERATORS[kind](number, other)

    assert [i for i in answer if i in numeric] == [i for i, n in numbers.items() if ours_says(n)]


def test_a_filter_that_is_asked_again_sees_what_changed(harness, tmp_path):
    other = make_harness(tmp_path)
    write(harness, {i: {"i64": integer(i)} for i in range(20)})
    wanted = compare("lt", "i64", 5)
    assert passing(harness, wanted) == passing(harness, wanted) == [0, 1, 2, 3, 4]
    write(other, {2: {"i64": integer(50)}, 30: {"i64": integer(1)}}, time=1)
    assert passing(harness, wanted) == passing(harness, wanted) == [0, 1, 3, 4, 30]
    # Rows that expire are not remembered as passing.
    expiring = make_harness(tmp_path, key_ttl_seconds=1)
    write(expiring, {31: {"i64": integer(2)}}, time=1)
    assert passing(harness, wanted)[-1] == 31
    time.sleep(1.1)
    assert passing(harness, wanted) == [0, 1, 3, 4, 30]
