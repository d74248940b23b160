"""Backup, restore, verify and compact: of a store in use, by function and by command."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import feast_vector
import numpy as np
import pytest
from conftest import (
    at,
    in_another_process,
    integer,
    key,
    make_harness,
    make_view,
    sql_elsewhere,
    text,
    vector,
    vector_view,
)
from feast_vector import _core, cli, views
from feast_vector.errors import FormatError, InvalidInputError, StorageError


@pytest.fixture
def view():
    return make_view()


def path_of(harness):
    return Path(harness.config.online_store.path)


def fill(harness, view, ids, word="first", minute=0):
    harness.write(
        view,
        *[
            (key(id=i), {"name": text(f"{word} {i}"), "number": integer(i)}, at(minute))
            for i in ids
        ],
    )


def name(harness, view, i):
    row = harness.read(view, key(id=i))[0][1]
    return row and row["name"].string_val


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def flip(path, position, bit=1):
    """Change a byte of a file that no process has open."""
    content = bytearray(path.read_bytes())
    content[position] ^= bit
    path.write_bytes(content)


# --- backup and restore


def test_a_backup_comes_back_under_the_process_that_uses_the_store(harness, view, tmp_path):
    harness.update([view])
    fill(harness, view, range(500))
    manifest = feast_vector.backup(path_of(harness), tmp_path / "backup")
    assert [(v["view"], v["rows"]) for v in manifest["views"]] == [("items", 500)]
    assert json.loads((tmp_path / "backup" / "manifest.json").read_text()) == manifest
    fill(harness, view, range(600), "second", 1)
    assert name(harness, view, 3) == "second 3"
    report = feast_vector.restore(path_of(harness), tmp_path / "backup")
    assert [v["rows"] for v in report["replaced"]] == [600]
    assert [v["rows"] for v in report["restored"]] == [500]
    assert name(harness, view, 3) == "first 3"
    assert name(harness, view, 550) is None
    fill(harness, view, [3, 550], "third", 2)
    assert [name(harness, view, i) for i in (3, 4, 550)] == ["third 3", "first 4", "third 550"]
    # The file that was replaced is whole, and goes back the same way.
    kept = make_harness(tmp_path, path=str(report["kept"]))
    assert [name(kept, view, i) for i in (3, 550)] == ["second 3", "second 550"]
    assert feast_vector.verify(path_of(harness))["ok"]


def test_a_restore_makes_the_file_where_there_is_none(harness, view, tmp_path):
    harness.update([view])
    fill(harness, view, range(10))
    feast_vector.backup(path_of(harness), tmp_path / "backup")
    other = make_harness(tmp_path / "other")
    report = feast_vector.restore(path_of(other), tmp_path / "backup")
    assert (report["replaced"], report["kept"]) == (None, None)
    assert name(other, view, 3) == "first 3"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' names are Unicode")
def test_a_store_whose_name_is_no_text(tmp_path, view):
    harness = make_harness(tmp_path, path=os.fsdecode(bytes(tmp_path) + b"/\xff.db"))
    harness.update([view])
    fill(harness, view, range(10))
    feast_vector.backup(path_of(harness), tmp_path / "backup")
    fill(harness, view, [3], "second", 1)
    report = feast_vector.restore(path_of(harness), tmp_path / "backup")
    assert report["kept"].startswith(f"{tmp_path}/\N{REPLACEMENT CHARACTER}.db.before-restore-")
    assert name(harness, view, 3) == "first 3"


def test_forked_workers_choose_different_names(harness, view, tmp_path):
    harness.update([view])
    feast_vector.backup(path_of(harness), tmp_path / "backup")
    for _ in range(2):
        child = os.fork()
        if child == 0:
            try:
                feast_vector.restore(path_of(harness), tmp_path / "backup")
            finally:
                os._exit(0)
        os.waitpid(child, 0)
    kept = [file for file in names_in(path_of(harness).parent) if ".before-restore-" in file]
    assert len(kept) == 2


def test_a_restore_replaces_a_damaged_file(harness, view, tmp_path):
    harness.update([view])
    fill(harness, view, range(10))
    feast_vector.backup(path_of(harness), tmp_path / "backup")
    harness.store.engine(harness.config).close()
    path_of(harness).write_bytes(b"not a database" * 1000)
    report = feast_vector.restore(path_of(harness), tmp_path / "backup")
    assert report["replaced"] is None
    assert Path(report["kept"]).read_bytes().startswith(b"not a database")
    assert name(harness, view, 3) == "first 3"


def test_the_log_of_the_replaced_file_never_meets_the_restored_one(harness, view, tmp_path):
    harness.update([view])
    fill(harness, view, range(50))
    feast_vector.backup(path_of(harness), tmp_path / "backup")
    # A reader of another process keeps the log from being emptied.
    code = """
view = make_view()
import sqlite3
c = sqlite3.connect(harness.config.online_store.path)
c.execute("BEGIN"); c.execute("SELECT count(*) FROM shop_items").fetchall()
print("reading", flush=True); sys.stdin.readline()
print(c.execute("SELECT count(*) FROM shop_items WHERE name LIKE 'first%'").fetchall(), flush=True)
"""
    with in_another_process(tmp_path, code) as reader:
        assert reader.stdout.readline() == "reading\n"
        fill(harness, view, range(80), "second", 1)
        report = feast_vector.restore(path_of(harness), tmp_path / "backup")
        fill(harness, view, range(40, 45), "third", 2)
        assert [name(harness, view, i) for i in (3, 41, 70)] == ["first 3", "third 41", None]
        reader.stdin.write("\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "[(50,)]\n"
    kept = make_harness(tmp_path, path=str(report["kept"]))
    assert [name(kept, view, i) for i in (3, 70)] == ["second 3", "second 70"]
    assert feast_vector.verify(path_of(harness))["ok"]


def test_a_backup_during_writes_of_another_process_is_of_one_moment(harness, view, tmp_path):
    harness.update([view])
    fill(harness, view, range(200))
    code = """
view = make_view()
for round in range(1, 10_000):
    harness.write(view, *[(key(id=i), {"name": text(f"x" * 500), "number": integer(round)}, at(round))
                          for i in range(200)])
    if round == 1: print("writing", flush=True)
"""
    with in_another_process(tmp_path, code) as writer:
        assert writer.stdout.readline() == "writing\n"
        for number in range(3):
            folder = tmp_path / f"backup{number}"
            feast_vector.backup(path_of(harness), folder)
            assert feast_vector.verify(folder)["ok"]
            copy = make_harness(tmp_path / f"copy{number}")
            feast_vector.restore(path_of(copy), folder)
            rows = copy.read(view, *[key(id=i) for i in range(200)])
            # Each of its transactions wrote every row.
            assert len({row["number"].int64_val for _, row in rows if row["name"].string_val}) == 1
        writer.kill()


def indexed(folder, **options):
    """A store with 9,000 vectors and their index, and their view."""
    harness = make_harness(folder, index_builds="on_demand", **options)
    view = vector_view(length=64, metric="L2")
    harness.update([view])
    numbers = np.random.default_rng(5).standard_normal((9000, 64)).astype("float32")
    harness.write(
        view,
        *[
            (key(id=i), {"title": text(f"t{i}"), "embedding": vector(*n)}, at(0))
            for i, n in enumerate(numbers)
        ],
    )
    engine = harness.store.engine(harness.config)
    engine.optimize(views.declaration(harness.config, view))
    return harness, view, numbers


def strategy(harness, view, query):
    """How the nearest row was found, and its id."""
    engine = harness.store.engine(harness.config)
    rows, explanation = engine.search(
        views.declaration(harness.config, view),
        top_k=1,
        feature="embedding",
        queries=query[None].astype(float),
        metric="L2",
        explain=True,
        typed=True,
    )
    return explanation, rows.column(0)[0].as_py()


def test_the_first_search_after_a_restore_uses_the_index_that_came_along(tmp_path):
    harness, view, numbers = indexed(tmp_path)
    manifest = feast_vector.backup(path_of(harness), tmp_path / "backup")
    assert len(manifest["index_files"]) == 1
    checked = feast_vector.verify(tmp_path / "backup")
    assert (checked["ok"], checked["vectors"]) == (True, 9000)
    before, found = strategy(harness, view, numbers[7])
    assert found == 7
    other = make_harness(tmp_path / "other", index_builds="on_demand")
    feast_vector.restore(path_of(other), tmp_path / "backup")
    after, found = strategy(other, view, numbers[7])
    assert found == 7
    assert json.loads(after)["strategy"] == json.loads(before)["strategy"] == "index"
    indexes = json.loads(
        other.store.engine(other.config).indexes(views.identity(other.config, view))
    )
    assert [len(index["segments"]) for index in indexes] == [1]
    # A file that a restore brings along is there however often it is restored.
    feast_vector.restore(path_of(other), tmp_path / "backup")
    assert json.loads(strategy(other, view, numbers[7])[0])["strategy"] == "index"
    assert feast_vector.verify(path_of(other))["ok"]


def test_a_backup_without_an_index_file_says_so_and_is_whole(tmp_path):
    harness, view, numbers = indexed(tmp_path)
    folder = Path(f"{path_of(harness)}.index")
    (segment,) = folder.glob("*.seg")
    segment.unlink()
    manifest = feast_vector.backup(path_of(harness), tmp_path / "backup")
    assert manifest["missing_index_files"] == [segment.name]
    other = make_harness(tmp_path / "other", index_builds="on_demand")
    feast_vector.restore(path_of(other), tmp_path / "backup")
    with pytest.warns(RuntimeWarning):
        assert strategy(other, view, numbers[7])[1] == 7


@pytest.mark.parametrize(
    "kind", ["flipped", "cut", "lost", "manifest", "index", "newer", "escapes"]
)
def test_a_damaged_backup_is_refused_and_changes_nothing(tmp_path, kind):
    harness, view, _ = indexed(tmp_path)
    backup = tmp_path / "backup"
    feast_vector.backup(path_of(harness), backup)
    database, manifest = backup / "online.db", backup / "manifest.json"
    if kind == "flipped":
        flip(database, 20_000)
    elif kind == "cut":
        os.truncate(database, database.stat().st_size - 8192)
    elif kind == "lost":
        database.unlink()
    elif kind == "manifest":
        manifest.write_text(manifest.read_text()[:-100])
    elif kind == "index":
        flip(next((backup / "online.db.index").iterdir()), 9000)
    elif kind == "newer":
        content = json.loads(manifest.read_text())
        manifest.write_text(json.dumps(content | {"feast_vector_backup": 99}))
    else:
        content = json.loads(manifest.read_text())
        content["index_files"][0]["file"] = "online.db.index/../../../etc/passwd.seg"
        manifest.write_text(json.dumps(content))
    names = names_in(tmp_path)
    inode = path_of(harness).stat().st_ino
    with pytest.raises(FormatError, match=r"newer|damaged|version 99"):
        feast_vector.restore(path_of(harness), backup)
    assert names_in(tmp_path) == names
    assert path_of(harness).stat().st_ino == inode
    assert harness.read(view, key(id=3))[0][1]["title"].string_val == "t3"
    if kind not in {"newer", "escapes"}:
        with pytest.raises(FormatError):
            feast_vector.verify(backup)


def test_targets_and_sources_are_looked_at_first(harness, view, tmp_path):
    nowhere = tmp_path / "nowhere.db"
    for call in (feast_vector.verify, feast_vector.compact):
        with pytest.raises(StorageError, match="there is no database"):
            call(nowhere)
    with pytest.raises(StorageError, match="there is no database"):
        feast_vector.backup(nowhere, tmp_path / "backup")
    assert names_in(tmp_path) == []
    harness.update([view])
    database = path_of(harness)
    feast_vector.backup(database, tmp_path / "backup")
    with pytest.raises(InvalidInputError, match="is there already"):
        feast_vector.backup(database, tmp_path / "backup")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("")
    with pytest.raises(InvalidInputError, match="is not a backup"):
        feast_vector.backup(database, tmp_path / "mine", replace=True)
    with pytest.raises(InvalidInputError, match="is not a backup"):
        feast_vector.restore(database, tmp_path / "mine")
    fill(harness, view, range(7))
    (tmp_path / "empty").mkdir()
    assert feast_vector.backup(database, tmp_path / "empty")["views"][0]["rows"] == 7
    assert feast_vector.backup(database, tmp_path / "backup", replace=True)["views"][0]["rows"] == 7
    assert feast_vector.verify(tmp_path / "backup")["rows"] == 7
    assert not list(tmp_path.glob(".*"))


def test_processes_that_read_and_write_live_through_restores(harness, view, tmp_path):
    harness.update([view])
    fill(harness, view, range(100))
    feast_vector.backup(path_of(harness), tmp_path / "backup")
    code = """
view = make_view()
print("running", flush=True)
rounds = 0
while not sys.stdin in __import__("select").select([sys.stdin], [], [], 0)[0]:
    rounds += 1
    harness.write(view, *[(key(id=i), {"name": text(f"mine {rounds}")}, at(rounds)) for i in range(100, 150)])
    rows = harness.read(view, *[key(id=i) for i in range(150)])
    first = {row["name"].string_val for _, row in rows[:100]}
    mine = {row and row["name"].string_val for _, row in rows[100:]}
    assert first == {f"first {i}" for i in range(100)}, first
    # All of one transaction: of this round, or restored away.
    assert len(mine) == 1, mine
print(rounds, flush=True)
"""
    with in_another_process(tmp_path, code) as other:
        assert other.stdout.readline() == "running\n"
        for _ in range(15):
            feast_vector.restore(path_of(harness), tmp_path / "backup", keep=False)
            assert name(harness, view, 3) == "first 3"
        other.stdin.write("\n")
        other.stdin.flush()
        assert int(other.stdout.readline()) > 0
    assert feast_vector.verify(path_of(harness))["ok"]


def test_a_restore_that_is_killed_leaves_the_old_or_the_new(harness, view, tmp_path):
    harness.update([view])
    fill(harness, view, range(2000))
    feast_vector.backup(path_of(harness), tmp_path / "backup")
    script = (
        "import sys, feast_vector; print('go', flush=True)\n"
        f"while True: feast_vector.restore({str(path_of(harness))!r}, {str(tmp_path / 'backup')!r}, keep=False)"
    )
    chance = random.Random(4)
    for _ in range(8):
        fill(harness, view, range(2000), "second", 1)
        command = [sys.executable, "-W", "ignore", "-c", script]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(chance.random() * 0.1)
            process.kill()
        words = {name(harness, view, i).split()[0] for i in range(0, 2000, 50)}
        assert words in ({"first"}, {"second"})
        assert feast_vector.verify(path_of(harness))["ok"]
        # And what it left is removed by the next.
        feast_vector.restore(path_of(harness), tmp_path / "backup", keep=False)
        assert not list(tmp_path.glob("*.restor*"))


@pytest.mark.parametrize("work", ["backup", "restore", "verify", "compact"])
def test_ctrl_c_ends_the_work_and_changes_nothing(harness, view, tmp_path, work):
    harness.update([view])
    for part in range(4):
        fill(harness, view, range(part * 5000, part * 5000 + 5000), "w " * 500)
    feast_vector.backup(path_of(harness), tmp_path / "backup")
    fill(harness, view, [1], "changed", 1)
    names = names_in(tmp_path)
    raised = []

    def press(stage, done, total):
        raised.append(stage)
        os.kill(os.getpid(), signal.SIGINT)

    call = {
        "backup": lambda: feast_vector.backup(path_of(harness), tmp_path / "other", progress=press),
        "restore": lambda: feast_vector.restore(
            path_of(harness), tmp_path / "backup", progress=press
        ),
        "verify": lambda: feast_vector.verify(path_of(harness), progress=press),
        "compact": lambda: feast_vector.compact(path_of(harness), progress=press),
    }[work]
    with pytest.raises(KeyboardInterrupt):
        call()
    assert raised
    assert names_in(tmp_path) == names
    assert name(harness, view, 1) == "changed 1"
    fill(harness, view, [1], "again", 2)
    assert name(harness, view, 1) == "again 1"


# --- verify


def everything(folder):
    """A store with cells of several kinds, texts and vectors."""
    harness, view, _ = indexed(folder, text_search_enabled=True)
    return harness, view


def found(report, check):
    return [finding for finding in report["findings"] if finding["check"] == check]


def test_a_sound_store_has_no_findings(tmp_path):
    harness, view = everything(tmp_path)
    harness.write(
        view, (key(id=3), {"title": text("new words"), "embedding": vector(*[1] * 64)}, at(1))
    )
    harness.store.engine(harness.config).delete(
        views.declaration(harness.config, view), [key(id=4).SerializeToString()]
    )
    report = feast_vector.verify(path_of(harness))
    assert report["ok"], report
    assert (report["rows"], report["counts"], report["findings"]) == (8999, {}, [])


# What is done to the file; what kind of finding it is; the row and the feature, if it is about one.
DAMAGES = [
    ("UPDATE shop_items SET embedding = x'010203' WHERE id = 5", "cell", 5, "embedding"),
    ("UPDATE shop_items SET title = x'ff' WHERE id = 5", "cell", 5, "title"),
    ("UPDATE shop_items SET title = cast(x'ff' as text) WHERE id = 5", "cell", 5, "title"),
    ("UPDATE shop_items SET title = 'other words' WHERE id = 5", "text", 5, "title"),
    ("UPDATE shop_items SET title = NULL WHERE id = 5", "text", 5, "title"),
    ("UPDATE shop_items SET cell_states = x'80' WHERE id = 5", "row", 5, None),
    ("UPDATE shop_items SET cell_states = x'05' WHERE id = 5", "cell", 5, "title"),
    ("UPDATE shop_items SET id = 77777 WHERE id = 5", "key", None, None),
    ("UPDATE shop_items SET entity_key = x'00' WHERE id = 5", "key", None, None),
    ("UPDATE shop_items SET event_timestamp = 'soon' WHERE id = 5", "row", 5, None),
    ("UPDATE shop_items SET event_timestamp = 1 WHERE id = 5", "index", 5, "embedding"),
    ("UPDATE shop_items SET expires_at = 9999999999999999 WHERE id = 5", "row", 5, None),
    ("UPDATE shop_items SET embedding = zeroblob(256) WHERE id = 5", "index", 5, "embedding"),
    ("UPDATE shop_items SET embedding = NULL WHERE id = 5", "index", 5, "embedding"),
    ("DELETE FROM shop_items WHERE id = 5", "index", None, "embedding"),
    ("DELETE FROM _feast_vector_columns WHERE name = 'title'", "catalog", None, None),
    ("ALTER TABLE shop_items RENAME COLUMN title TO name", "catalog", None, None),
    ("UPDATE _feast_vector_tables SET table_name = 'gone'", "catalog", None, None),
    ("UPDATE _feast_vector_segments SET table_id = 99", "catalog", None, None),
    ("DELETE FROM _feast_vector_segments", "index", 0, "embedding"),
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    harness, _ = everything(folder)
    feast_vector.backup(path_of(harness), folder / "backup")
    return folder / "backup"


@pytest.mark.parametrize(("damage", "check", "row", "feature"), DAMAGES)
def test_verify_says_what_is_wrong_and_where(sound, tmp_path, damage, check, row, feature):
    harness = make_harness(tmp_path)
    feast_vector.restore(path_of(harness), sound)
    sql_elsewhere(harness, damage)
    report = feast_vector.verify(path_of(harness))
    assert not report["ok"]
    findings = found(report, check)
    assert findings, report
    if row is not None:
        assert f"id={row}" in {finding["entity_key"] for finding in findings}
    if feature:
        # A row's number of words is of all its texts.
        assert {finding["feature"] for finding in findings} - {None} == {feature}
        assert findings[0]["view"] == "items"


def test_verify_reads_every_byte_of_pages_and_index_files(sound, tmp_path):
    harness = make_harness(tmp_path)
    feast_vector.restore(path_of(harness), sound)
    harness.store.engine(harness.config).close()
    (segment,) = Path(f"{path_of(harness)}.index").glob("*.seg")
    flip(segment, segment.stat().st_size // 2)
    report = feast_vector.verify(path_of(harness))
    (finding,) = found(report, "index")
    assert "checksum" in finding["message"]
    assert finding["file"] == str(segment)
    segment.unlink()
    (finding,) = found(feast_vector.verify(path_of(harness)), "index")
    assert "not there" in finding["message"]
    # The first page of a table's tree.
    page = sql_elsewhere(harness, "SELECT rootpage FROM sqlite_schema WHERE name = 'shop_items'")[
        0
    ][0]
    flip(path_of(harness), (page - 1) * 8192 + 3, 0x40)
    report = feast_vector.verify(path_of(harness))
    assert found(report, "pages"), report


def test_the_list_is_bounded_and_the_count_is_not(sound, tmp_path):
    harness = make_harness(tmp_path)
    feast_vector.restore(path_of(harness), sound)
    sql_elsewhere(harness, "UPDATE shop_items SET event_timestamp = 'soon' WHERE id < 50")
    report = feast_vector.verify(path_of(harness), limit=3)
    assert len(found(report, "row")) == 3
    assert report["counts"]["row"] == 50


# --- compact


def test_compact_gives_space_back_and_says_how_much(harness, view, tmp_path):
    harness.update([view])
    fill(harness, view, range(3000), "word " * 50)
    declaration = views.declaration(harness.config, view)
    engine = harness.store.engine(harness.config)
    engine.delete(declaration, [key(id=i).SerializeToString() for i in range(2900)])
    leftover = tmp_path / "vector.db.restore-0123456789abcdef"
    leftover.mkdir()
    report = feast_vector.compact(path_of(harness))
    assert report["after"] < report["before"] / 4
    assert path_of(harness).stat().st_size == report["after"]
    assert not leftover.exists()
    assert name(harness, view, 2950).endswith(" 2950")
    assert feast_vector.verify(path_of(harness))["rows"] == 100


def test_readers_go_on_while_a_store_is_compacted(harness, view, tmp_path):
    harness.update([view])
    fill(harness, view, range(3000), "word " * 50)
    code = """
view = make_view()
print("reading", flush=True)
while not sys.stdin in __import__("select").select([sys.stdin], [], [], 0)[0]:
    assert harness.read(view, key(id=7))[0][1]["number"].int64_val == 7
print("done", flush=True)
"""
    with in_another_process(tmp_path, code) as reader:
        assert reader.stdout.readline() == "reading\n"
        for _ in range(5):
            feast_vector.compact(path_of(harness))
        reader.stdin.write("\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "done\n"
    assert feast_vector.verify(path_of(harness))["ok"]


# --- the commands


def run(capsys, *arguments):
    status = cli.main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


def test_the_commands_work_on_a_file_without_a_repo(harness, view, tmp_path, capsys):
    harness.update([view])
    fill(harness, view, range(12))
    database, backup = path_of(harness), tmp_path / "backup"
    status, out, _ = run(capsys, "backup", backup, "--path", database)
    assert (status, out.startswith(f"{backup}: 12 rows in 1 view, 0 index files, ")) == (0, True)
    status, _, error = run(capsys, "backup", backup, "--path", database)
    assert (status, "--force" in error) == (1, True)
    assert run(capsys, "backup", backup, "--path", database, "--force")[0] == 0
    fill(harness, view, range(20), "second", 1)
    status, out, _ = run(capsys, "restore", backup, "--path", database)
    assert status == 0
    assert "12 rows in 1 view\n  replaced 20 rows in 1 view\n" in out
    assert "shop.items: 20 rows before, 12 now" in out
    assert f"kept as {database}.before-restore-" in out
    assert name(harness, view, 3) == "first 3"
    assert run(capsys, "verify", "--path", database)[:2] == (
        0,
        "ok: 12 rows and 0 indexed vectors\n",
    )
    assert run(capsys, "verify", backup)[:2] == (0, "ok: 12 rows and 0 indexed vectors\n")
    status, out, _ = run(capsys, "compact", "--path", database)
    assert (status, "given back" in out) == (0, True)
    sql_elsewhere(harness, "UPDATE shop_items SET number = 'x' WHERE id = 5")
    status, out, error = run(capsys, "verify", "--path", database)
    assert status == 1
    assert "cell: feature view 'shop.items', feature 'number', row 6 (id=5): it is a TEXT" in out
    assert "1 problem (1 cell) in 12 rows" in error
    status, out, _ = run(capsys, "verify", "--json", "--path", database)
    assert (status, json.loads(out)["counts"]) == (1, {"cell": 1})
    flip(backup / "online.db", 100)
    assert run(capsys, "verify", backup)[0] == 1
    for arguments in (
        ["verify", "--path", "/nowhere.db"],
        ["verify", "/nowhere"],
        ["compact", "-x"],
    ):
        try:
            status, _, error = run(capsys, *arguments)
        except SystemExit as usage:
            status, error = usage.code, "feast-vector"
        assert (status, "feast-vector" in error, "Traceback" in error) == (
            2 if "-x" in arguments else 1,
            True,
            False,
        )


def test_the_commands_work_in_a_repo(harness, view, tmp_path, capsys):
    harness.update([view])
    fill(harness, view, range(12))
    (tmp_path / "feature_store.yaml").write_text(
        "project: shop\nprovider: local\nregistry: registry.db\n"
        "entity_key_serialization_version: 3\nonline_store:\n  type: vector\n  path: vector.db\n"
    )
    assert run(capsys, "-c", tmp_path, "backup", tmp_path / "backup")[0] == 0
    assert run(capsys, "-c", tmp_path, "verify")[1].startswith("ok: 12 rows")
    assert run(capsys, "-c", tmp_path, "restore", tmp_path / "backup", "--discard")[0] == 0
    assert not list(tmp_path.glob("*before*"))
    with pytest.raises(SystemExit) as stopped:
        run(capsys, "--version")
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"feast-vector {_core.__version__}\n"


def test_ctrl_c_in_the_terminal_is_a_sentence_and_a_status(harness, view, tmp_path):
    harness.update([view])
    for part in range(4):
        fill(harness, view, range(part * 5000, part * 5000 + 5000), "w " * 500)
    code = (
        "import os, signal, sys; from feast_vector import cli, _commands\n"
        "call = _commands.StageProgress.__call__\n"
        "def press(self, *a): call(self, *a); os.kill(os.getpid(), signal.SIGINT)\n"
        "_commands.StageProgress.__call__ = press\n"
        f"sys.exit(cli.main(['verify', '--path', {str(path_of(harness))!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "feast-vector: interrupted\n")
