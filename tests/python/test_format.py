"""Files of every released format are read as they were written.

`python tests/python/test_format.py` writes the file of the current format anew; a file that was once
released is never changed.
"""

import shutil
import sys
from pathlib import Path

import pytest
from conftest import at, integer, key, make_harness, make_view, text, vector, vector_view
from feast.protos.feast.types.Value_pb2 import (
    BytesList,
    DoubleSet,
    Map,
    StringList,
    Value,
    ZonedTimestamp,
)
from feast.types import Array, Bool, Bytes, Float32, Float64, Int64, Set, String
from feast.types import Map as MapType
from feast_vector import _core

GOLDEN = Path(__file__).parents[1] / "data"

VIEW = make_view(
    "golden",
    {
        "t": String,
        "i": Int64,
        "d": Float64,
        "f": Float32,
        "b": Bool,
        "raw": Bytes,
        "v": Array(Float32),
        "l": Array(String),
        "s": Set(Float64),
        "m": MapType,
    },
)

ROWS = {
    1: {
        "t": text("é\0🙂"),
        "i": integer(-(2**63)),
        "d": Value(double_val=-0.0),
        "f": Value(float_val=float("nan")),
        "b": Value(bool_val=True),
        "raw": Value(bytes_val=b"\xff\0"),
        "v": vector(1.5, -2, 0),
        "l": Value(string_list_val=StringList(val=["a", ""])),
        "s": Value(double_set_val=DoubleSet(val=[0.1, 1e300])),
        "m": Value(map_val=Map(val={"k": integer(1)})),
    },
    2: {"t": Value(), "i": Value(null_val=0), "d": text("of another type"), "v": vector()},
    3: {
        "l": Value(bytes_list_val=BytesList(val=[b"x"])),
        "m": Value(zoned_timestamp_val=ZonedTimestamp(unix_timestamp=1, zone="UTC")),
        "undeclared": integer(7),
    },
}


def write(harness):
    harness.write(VIEW, *((key(id=i), row, at(i), at(0)) for i, row in ROWS.items()))
    items = vector_view(metric="L2")
    for i in range(1, 4):
        row = {"title": text(f"t{i}"), "embedding": vector(i, 0)}
        harness.write(items, (key(id=i, shop="s"), row, at(0)))


@pytest.mark.parametrize("version", range(1, _core.FORMAT_VERSION + 1))
def test_a_file_of_an_earlier_version(tmp_path, version):
    shutil.copy(GOLDEN / f"format-{version}.db", tmp_path / "vector.db")
    harness = make_harness(tmp_path)
    rows = harness.read(VIEW, *(key(id=i) for i in ROWS))
    # The protos' own comparison has NaN differ from itself.
    assert [repr(row) for row in rows] == [repr((at(i), row)) for i, row in ROWS.items()]
    assert [row[1:] for row in harness.search(vector_view(metric="L2"), [2.9, 0])] == [
        ("t3", 0.1),
        ("t2", 0.9),
        ("t1", 1.9),
    ]
    searching = make_harness(tmp_path, text_search_enabled=True)
    for _ in range(2):
        found = searching.find(vector_view(metric="L2"), text="T2")
        assert [entity for entity, _ in found] == [key(id=2, shop="s")]
    harness.write(VIEW, (key(id=1), {"t": text("new")}, at(9)))
    assert harness.read(VIEW, key(id=1))[0][1]["t"] == text("new")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    harness = make_harness(folder, text_search_enabled=True)
    write(harness)
    for engine in harness.store._engines.values():
        engine.close()
    GOLDEN.mkdir(exist_ok=True)
    shutil.copy(folder / "vector.db", GOLDEN / f"format-{_core.FORMAT_VERSION}.db")
