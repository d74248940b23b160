"""The database is restored, deleted or replaced under a store that has it open.

What a live store answers afterwards is what a new process answers.
"""

import ast
import threading
import time

import feast_vector
import pytest
from conftest import (
    at,
    in_another_process,
    integer,
    key,
    make_harness,
    make_view,
    text,
    vector,
    vector_view,
)
from feast import Field
from feast.filter_models import ComparisonFilter
from feast.types import Int64, String
from feast_vector.errors import StorageError
from feast_vector.views import declaration


def path_of(harness):
    """The database."""
    return harness.config.repo_path / "vector.db"


def replace(harness, content):
    """Put another file in place of the database, as a restore does."""
    path = path_of(harness)
    for ending in ["", "-wal", "-shm"]:
        path.with_name(path.name + ending).unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)


@pytest.fixture
def live(tmp_path):
    """A store in use."""
    return make_harness(tmp_path / "live")


def engine(harness):
    """The store's engine."""
    return harness.store.engine(harness.config)


def items_view():
    """A view with a vector, a text and a number."""
    view = vector_view(metric="L2")
    view.features.append(Field(name="n", dtype=Int64))
    return view


def put(harness, i, title, n, minutes=0):
    """Write a row."""
    row = {"title": text(title), "embedding": vector(i, 0), "n": integer(n)}
    harness.write(items_view(), (key(id=i), row, at(minutes)))


def ask(harness):
    """Everything that is remembered between calls: vectors, scalars, schema."""
    view = items_view()
    found = harness.search(view, [0, 0])
    at_most = ComparisonFilter(type="lte", key="n", value=5)
    small = sorted(harness.find_ids(view, [0, 0], filters=at_most))
    rows = [row for _, row in harness.read(view, *(key(id=i) for i in range(1, 6)))]
    titles = [row and row["title"].string_val for row in rows]
    return found, small, titles


def test_a_backup_restored_under_a_live_store(live, tmp_path):
    put(live, 1, "a", 1)
    put(live, 2, "b", 2)
    engine(live).close()
    backup = path_of(live).read_bytes()
    put(live, 3, "lost", 3)
    put(live, 1, "lost too", 9, minutes=1)
    assert len(ask(live)[0]) == 3
    replace(live, backup)
    truth = make_harness(tmp_path / "live")
    assert ask(live) == ask(truth)
    # As many writes as were lost: the numbers are the same again, the rows are not.
    put(live, 4, "d", 4)
    put(live, 5, "e", 5)
    assert ask(live) == ask(truth) == ask(make_harness(tmp_path / "live"))
    assert ask(live)[1] == [1, 2, 4, 5]


LOG_STAYED = "while its write-ahead log stayed; that was set aside as '(.*)'"


def other_file(tmp_path):
    """A closed file with a row of its own."""
    other = make_harness(tmp_path / "other")
    put(other, 2, "restored", 2)
    engine(other).close()
    return path_of(other)


def test_a_file_renamed_over_the_database_never_meets_the_old_log(live, tmp_path):
    for i in range(1, 6):
        put(live, i, "old", i)
    ask(live)
    other_file(tmp_path).replace(path_of(live))
    with pytest.warns(RuntimeWarning, match=LOG_STAYED):
        assert ask(live)[1:] == ([2], [None, "restored", None, None, None])
    put(live, 3, "new", 3)
    assert ask(live) == ask(make_harness(tmp_path / "live"))
    assert ask(live)[1] == [2, 3]
    assert feast_vector.verify(path_of(live))["ok"]


@pytest.mark.parametrize("how", ["replaced", "moved", "deleted"])
def test_whoever_comes_first_while_another_process_has_the_old_file_open(live, tmp_path, how):
    path = path_of(live)
    other = other_file(tmp_path)
    code = """
import warnings; warnings.simplefilter("ignore")
import test_replaced_file as t
for i in range(1, 6): t.put(harness, i, "old", i)
t.ask(harness); print("open", flush=True); sys.stdin.readline()
t.put(harness, 4, "late", 4); print(t.ask(harness)[1:], flush=True); sys.stdin.readline()
"""
    with in_another_process(tmp_path / "live", code) as idle:
        assert idle.stdout.readline() == "open\n"
        log = path.with_name(path.name + "-wal").read_bytes()
        if how == "replaced":
            other.replace(path)
        elif how == "moved":
            path.rename(tmp_path / "saved.db")
        else:
            path.unlink()
        with pytest.warns(RuntimeWarning, match=LOG_STAYED):
            put(live, 3, "new", 3)
        title = "restored" if how == "replaced" else None
        assert ask(live)[2] == [None, title, "new", None, None]
        idle.stdin.write("\n")
        idle.stdin.flush()
        found = ast.literal_eval(idle.stdout.readline())
        assert found[1] == [None, title, "new", "late", None]
        assert ask(live)[1:] == found
        idle.stdin.write("\n")
    assert feast_vector.verify(path)["ok"]
    (aside,) = path.parent.glob("*-wal.of-replaced-*")
    assert aside.read_bytes() == log
    if how == "moved":
        # The old file and its log are whole.
        saved = tmp_path / "saved.db"
        aside.rename(saved.with_name("saved.db-wal"))
        for ending in ("", "-wal"):
            saved.with_name("saved.db" + ending).rename(tmp_path / f"vector.db{ending}")
        assert ask(make_harness(tmp_path))[1] == [1, 2, 3, 4, 5]


def test_a_log_that_is_deleted_ends_what_was_in_it_and_nothing_else(live, tmp_path):
    put(live, 1, "kept", 1)
    engine(live).close()
    put(live, 2, "in the log", 2)
    ask(live)
    path_of(live).with_name("vector.db-wal").unlink()
    with pytest.raises(StorageError, match="may be lost: write them again"):
        put(live, 3, "lost", 3)
    assert ask(live) == ask(make_harness(tmp_path / "live"))
    put(live, 4, "new", 4)
    assert ask(live) == ask(make_harness(tmp_path / "live"))
    assert ask(live)[2] == ["kept", None, None, "new", None]
    assert feast_vector.verify(path_of(live))["ok"]


def test_another_layout_in_a_file_of_the_same_name(live, tmp_path):
    old = make_view("rows", {"a": Int64, "b": String})
    live.update([old])
    live.write(old, (key(id=1), {"a": integer(1), "b": text("x")}, at(0)))
    live.read(old, key(id=1))
    replace(live, None)
    other = make_harness(tmp_path / "live")
    new = make_view("rows", {"c": Int64, "a": String, "b": String})
    other.update([new])
    other.write(new, (key(id=7), {"c": integer(70), "a": text("7"), "b": text("y")}, at(0)))
    row = {"c": integer(70), "a": text("7"), "b": text("y")}
    assert live.read(new, key(id=7)) == other.read(new, key(id=7)) == [(at(0), row)]
    live.write(new, (key(id=8), {"a": text("eight"), "c": integer(5)}, at(0)))
    assert other.read(new, key(id=8)) == [(at(0), {"a": text("eight"), "c": integer(5)})]


@pytest.mark.parametrize("after", [0.02, 0.1, 0.3])
def test_a_build_is_thrown_away_when_its_database_is(tmp_path, after):
    length, rows = 32, 12_000
    view = vector_view(length=length, metric="L2")

    def row(number):
        return {"title": text(""), "embedding": vector(*[number] * length)}

    def fill(harness, sign):
        harness.write(
            view,
            *((key(id=i), row(sign * (i + 1)), at(0)) for i in range(rows)),
        )
        engine(harness).close()

    live = make_harness(tmp_path / "live", index_builds="on_demand")
    other = make_harness(tmp_path / "other", index_builds="on_demand")
    fill(live, 1)
    fill(other, -1)
    content = path_of(other).read_bytes()
    declared = declaration(live.config, view)
    building = threading.Thread(target=lambda: engine(live).optimize(declared))
    building.start()
    time.sleep(after)
    replace(live, content)
    building.join()
    for harness in [live, make_harness(tmp_path / "live", index_builds="on_demand")]:
        (_, _, distance), *_ = harness.search(view, [-7.0] * length, 1)
        assert distance == 0
        assert harness.search(view, [7.0] * length, 1)[0][2] > 1
