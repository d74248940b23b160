"""Writes of many rows, and of large ones."""

import pyarrow as pa
import pytest
from conftest import at, integer, key, make_view, text
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast_vector import protos
from feast_vector.errors import InvalidInputError


def test_ctrl_c_amid_a_large_write_leaves_nothing(harness, monkeypatch):
    view = make_view()
    made = []

    def interrupted(*arguments):
        made.append(arguments)
        if len(made) == 3:
            raise KeyboardInterrupt
        return make_batches(*arguments)

    make_batches = protos._batches
    monkeypatch.setattr(protos, "_batches", interrupted)
    rows = [(key(id=i), {"number": integer(i)}, at(0)) for i in range(10_000)]
    with pytest.raises(KeyboardInterrupt):
        harness.write(view, *rows)
    assert harness.read(view, key(id=1)) == [(None, None)]
    monkeypatch.undo()
    harness.write(view, *rows)
    assert harness.read(view, key(id=9_999)) == [(at(0), {"number": integer(9_999)})]


def test_values_that_arrow_cannot_hold_in_one_array(harness, monkeypatch):
    """More than 2 GiB of a feature: here, of more than three rows."""
    view = make_view()

    def limited(serialized):
        column = messages(serialized)
        return column if len(column) <= 3 else pa.chunked_array([column[:3], column[3:]])

    messages = protos._messages
    monkeypatch.setattr(protos, "_messages", limited)
    rows = [(key(id=i), {"name": text(str(i)), "number": integer(i)}, at(0)) for i in range(50)]
    harness.write(view, *rows)
    assert harness.read(view, *(row[0] for row in rows)) == [(at(0), row[1]) for row in rows]
    count = protos._ROWS_FOR_NUMBERS
    of_another_type = [(key(id=i), {"number": text(str(i))}, at(1)) for i in range(count)]
    harness.write(view, *of_another_type)
    found = harness.read(view, *(row[0] for row in of_another_type), features=["number"])
    assert found == [(at(1), row[1]) for row in of_another_type]


def test_large_rows_are_few_in_a_batch(harness):
    """However many are written, what is in memory at once is bounded."""
    view = make_view()
    rows = [(key(id=i), {"name": text("x" * 3_000_000)}, at(0), None) for i in range(12)]
    batches = [list(make()) for make in protos.write_stream(rows, view.features)._makers]
    assert [batch.num_rows for made in batches for batch in made] == [5, 5, 2]
    harness.write(view, *(row[:3] for row in rows))
    read = harness.read(view, *(row[0] for row in rows))
    assert read == [(at(0), row[1]) for row in rows]


def test_an_error_of_the_core_amid_a_stream_is_what_is_raised(harness):
    view = make_view()
    rows = [(key(id=i), {"number": integer(i)}, at(0)) for i in range(20_000)]
    rows[2_000] = (EntityKey(join_keys=["id"], entity_values=[Value()]), *rows[2_000][1:])
    with pytest.raises(InvalidInputError, match="row 2000"):
        harness.write(view, *rows)
    assert harness.read(view, key(id=1)) == [(None, None)]


def test_new_and_known_rows_mixed_and_repeated(harness):
    """Whichever a row is, and whatever came before it."""
    view = make_view()
    harness.write(view, *((key(id=i), {"number": integer(i)}, at(5)) for i in range(0, 40, 2)))
    rows = [(i % 30, at(i % 11)) for i in range(600)]
    harness.write(view, *((key(id=i), {"name": text(str(time))}, time) for i, time in rows))
    expected = {i: at(5) for i in range(0, 40, 2)}
    names = {}
    for i, time in rows:
        if i not in expected or time >= expected[i]:
            expected[i] = time
            names[i] = time
    found = harness.read(view, *(key(id=i) for i in range(40)))
    for i, (time, row) in enumerate(found):
        assert time == expected.get(i)
        assert (row or {}).get("name") == (text(str(names[i])) if i in names else None)
        assert (row or {}).get("number") == (integer(i) if i % 2 == 0 else None)
