"""What `feast apply` changes, and what it leaves."""

import pytest
from conftest import at, integer, key, make_harness, make_view, sql_elsewhere, text, vector
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Array, Bytes, Float32, Int64, String


def test_apply_adds_removes_and_retypes_features_and_keeps_the_others(harness):
    view = make_view(fields={"a": Int64, "b": String, "c": Array(Float32)})
    harness.update([view])
    values = {"a": integer(1), "b": text("x"), "c": vector(1, 2)}
    harness.write(view, (key(id=1), values, at(0)), (key(id=2), {"a": Value()}, at(0)))

    # `b` goes, `a` is retyped, `d` comes, and a scalar is added behind a wide column.
    edited = make_view(fields={"a": String, "c": Array(Float32), "d": Bytes, "e": Int64})
    with pytest.warns(UserWarning, match="feature 'a': it was INT64 and is STRING by now; 1 rows"):
        harness.update([edited])
    one, two = harness.read(edited, key(id=1), key(id=2))
    assert one == (at(0), {"a": integer(1), "c": vector(1, 2)})
    assert two == (at(0), {"a": Value()})
    harness.write(edited, (key(id=1), {"a": text("now text"), "e": integer(5)}, at(1)))
    assert harness.read(edited, key(id=1))[0][1] == {
        "a": text("now text"),
        "c": vector(1, 2),
        "e": integer(5),
    }
    (sql,) = sql_elsewhere(harness, "SELECT sql FROM sqlite_schema WHERE name = 'shop_items'")[0]
    assert sql.index('"e" INTEGER') < sql.index('"c" BLOB')

    # A feature that comes back under its old name has lost its data.
    with pytest.warns(UserWarning, match="feature 'a': it was STRING and is INT64 by now"):
        harness.update([view])
    assert harness.read(view, key(id=1))[0][1].keys() == {"a", "c"}


def test_a_renamed_feature_starts_absent(harness):
    view = make_view(fields={"a": Int64, "b": Int64})
    harness.write(view, (key(id=1), {"a": integer(1), "b": integer(2)}, at(0)))
    renamed = make_view(fields={"z": Int64, "b": Int64})
    harness.update([renamed])
    assert harness.read(renamed, key(id=1)) == [(at(0), {"b": integer(2)})]


def test_another_process_sees_the_new_schema(tmp_path):
    first, second = make_harness(tmp_path), make_harness(tmp_path)
    view = make_view(fields={"a": Int64})
    first.write(view, (key(id=1), {"a": integer(1)}, at(0)))
    assert second.read(view, key(id=1))[0][1] == {"a": integer(1)}
    edited = make_view(fields={"b": String, "a": Int64})
    second.update([edited])
    second.write(edited, (key(id=1), {"b": text("x")}, at(1)))
    assert first.read(view, key(id=1))[0][1] == {"a": integer(1), "b": text("x")}


def test_other_join_keys_start_an_empty_table(harness):
    view = make_view()
    harness.update([view])
    harness.write(view, (key(id=1), {"number": integer(1)}, at(0)))
    other = make_view(join_key="item_id")
    with pytest.warns(UserWarning, match="join keys were id and are item_id by now; 1 rows"):
        harness.update([other])
    assert harness.read(other, key(id=1), key(item_id=1)) == [(None, None)] * 2


def test_a_stray_key_does_not_cost_the_table(harness):
    """A writer's wrong join key is not the view's: the next apply must not start anew for it."""
    view = make_view()
    harness.update([view])
    harness.write(view, (key(id=1), {"number": integer(1)}, at(0)))
    harness.write(view, (key(id=1, shop="s"), {"number": integer(2)}, at(0)))
    harness.update([view])
    assert harness.read(view, key(id=1))[0][1] == {"number": integer(1)}
    assert harness.read(view, key(id=1, shop="s"))[0][1] == {"number": integer(2)}


def test_a_view_that_is_written_before_it_is_applied(harness):
    view = make_view()
    columns, view.entity_columns = view.entity_columns, []
    harness.write(view, (key(id=1), {"number": integer(1)}, at(0)))
    view.entity_columns = columns
    view.features[0].vector_length = 3
    harness.update([view])
    assert harness.read(view, key(id=1))[0][1] == {"number": integer(1)}
    query = "SELECT name, declared FROM _feast_vector_columns WHERE role = 'join_key'"
    assert sql_elsewhere(harness, query) == [("id", 1)]
    with pytest.warns(UserWarning, match="join keys were id and are other by now; 1 rows"):
        harness.update([make_view(join_key="other")])
    assert harness.read(view, key(id=1)) == [(None, None)]


def test_awkward_names(harness):
    fields = dict.fromkeys(
        ["row_id", "Entity_Key", "cell_states", 'a"b', "select", "Ärger", "x y", "ID", "a", "A"],
        Int64,
    )
    view = make_view('odd "view"; --', fields)
    harness.update([view])
    values = {name: integer(i) for i, name in enumerate(fields)}
    harness.write(view, (key(id=1), values, at(0)))
    assert harness.read(view, key(id=1)) == [(at(0), values)]


def test_views_whose_table_names_would_collide(tmp_path):
    """Feast names both tables `a_b_c`."""
    one, two = make_harness(tmp_path, "a"), make_harness(tmp_path, "a_b")
    one.write(make_view("b_c"), (key(id=1), {"number": integer(1)}, at(0)))
    two.write(make_view("c"), (key(id=1), {"number": integer(2)}, at(0)))
    assert one.read(make_view("b_c"), key(id=1))[0][1] == {"number": integer(1)}
    assert two.read(make_view("c"), key(id=1))[0][1] == {"number": integer(2)}


def test_too_many_features_is_said(harness):
    view = make_view(fields={f"f{i}": Int64 for i in range(2_000)})
    with pytest.raises(ValueError, match=r"feature view 'items'.*2001 join keys and features"):
        harness.update([view])
