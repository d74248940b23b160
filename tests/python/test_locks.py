"""What else in the process touches the store's files: another SQLite, copies, forks."""

import contextlib
import json
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import indexing
import locks_workload
import pytest
from conftest import (
    at,
    in_another_process,
    integer,
    key,
    make_harness,
    make_view,
    sql_elsewhere,
)

fcntl = pytest.importorskip("fcntl", reason="locks and forks are Unix's")

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="open file description locks")


@linux_only
def test_nothing_in_the_process_takes_our_locks_nor_we_theirs(tmp_path):
    lost, (ours, theirs) = locks_workload.run_tramplers(tmp_path, 4)
    assert lost == []
    assert min(ours, theirs) > 10


@linux_only
def test_pythons_sqlite_beside_us_needs_no_warning(harness):
    harness.write(make_view(), (key(id=1), {"number": integer(1)}, at(0)))
    path = harness.config.online_store.path
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        connection = sqlite3.connect(path)
        assert connection.execute("SELECT number FROM shop_items").fetchall() == [(1,)]
        connection.close()
        shutil.copyfile(path, path + ".copy")


def test_a_connection_of_pythons_outlives_our_last(harness):
    """Ours close, an outsider comes and goes, and theirs goes on writing."""
    view, path = make_view(), harness.config.online_store.path
    harness.write(view, (key(id=1), {"number": integer(1)}, at(0)))
    theirs = sqlite3.connect(path)
    theirs.execute("CREATE TABLE theirs (x)")
    theirs.commit()
    for step in range(20):
        for engine in harness.store._engines.values():
            engine.close()
        assert sql_elsewhere(harness, "SELECT count(*) FROM theirs") == [(step,)]
        theirs.execute("INSERT INTO theirs VALUES (?)", (step,))
        theirs.commit()
        harness.write(view, (key(id=step), {"number": integer(step)}, at(step)))
    theirs.close()
    assert sql_elsewhere(harness, "SELECT count(*) FROM theirs") == [(20,)]
    assert sql_elsewhere(harness, "SELECT count(*) FROM shop_items") == [(20,)]


POSIX = """
import os, shutil, sqlite3, warnings
view = make_view()
harness.write(view, (key(id=1), {"number": integer(1)}, at(0)))
path = harness.config.online_store.path
def heard(work):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    return [str(warning.message) for warning in caught]
ways = [
    lambda: sqlite3.connect(path).close(), lambda: sqlite3.connect(Path(path)).close(),
    lambda: sqlite3.connect(os.fsencode(path)).close(), lambda: open(path, "rb").close(),
    lambda: os.close(os.open(path + "-wal", os.O_RDONLY)), lambda: open(path + "-shm", "rb").close(),
    lambda: shutil.copyfile(path, path + ".copy"),
    lambda: shutil.copy(os.path.join(os.path.dirname(path), ".", os.path.basename(path)), path + ".copy"),
]
for way in ways:
    assert any("feast-vector uses in this process" in said for said in heard(way)), heard(way)
assert heard(lambda: open(path + ".copy", "rb").close()) == []
assert heard(lambda: sqlite3.connect(":memory:").close()) == []
assert heard(lambda: os.close(os.open(os.devnull, os.O_RDONLY))) == []
"""


@contextlib.contextmanager
def posix_locks():
    """What is started meanwhile has POSIX locks, as on a file system that has no others."""
    os.environ["FEAST_VECTOR_LOCKS"] = "posix"
    try:
        yield
    finally:
        del os.environ["FEAST_VECTOR_LOCKS"]


def test_where_locks_can_be_lost_opening_and_copying_is_warned_of(tmp_path):
    with posix_locks():
        process = in_another_process(tmp_path, POSIX)
        process.communicate()
    assert process.returncode == 0


@linux_only
def test_a_lost_log_is_an_error_and_not_a_lost_row(tmp_path):
    """POSIX locks are dropped, an outsider deletes the log: no row is acknowledged into it."""
    code = """
import warnings; warnings.simplefilter("ignore")
view, path, kept, refused = make_view(), harness.config.online_store.path, [], 0
for step in range(13):
    try:
        harness.write(view, (key(id=step), {"number": integer(step)}, at(0)))
        kept.append(step)
    except Exception as error:
        assert "deleted or replaced the write-ahead log" in str(error), error
        refused += 1
    if step % 4 == 2:
        sql_elsewhere(harness, "SELECT 1")
        open(path, "rb").close(); open(path + "-shm", "rb").close()
        sql_elsewhere(harness, "SELECT count(*) FROM shop_items")
print(kept, refused)
"""
    with posix_locks(), in_another_process(tmp_path, code) as process:
        said = process.stdout.read()
    assert process.returncode == 0
    assert int(said.split()[-1]) > 0, said
    # Those after the error are there; what was lost before it, it says.
    harness = make_harness(tmp_path)
    assert harness.read(make_view(), key(id=12))[0][1]["number"] == integer(12)
    assert sql_elsewhere(harness, "PRAGMA integrity_check") == [("ok",)]


# --- forks


@linux_only
@pytest.mark.parametrize("locks", ["description", "posix"])
@pytest.mark.parametrize("kind", ["python", "c"])
def test_forks_while_threads_write(tmp_path, kind, locks):
    command = [sys.executable, "-W", "ignore", locks_workload.__file__, kind, str(tmp_path), "3"]
    environment = dict(os.environ)
    if locks == "posix":
        environment["FEAST_VECTOR_LOCKS"] = "posix"
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    lost, rest = done.stdout.split("]", 1)
    assert (lost, rest.split(",", 2)[2].strip()) == ("([", "[])"), (done.stdout, done.stderr)


def forked(work, fork=os.fork):
    """Run work in a child; gives its exit status."""
    child = fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException as error:  # noqa: BLE001
            print("child:", repr(error), file=sys.stderr, flush=True)
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@linux_only
@pytest.mark.parametrize("fork", locks_workload.FORKS.values(), ids=locks_workload.FORKS)
def test_a_child_reads_and_writes_whichever_way_it_was_forked(harness, fork):
    view = make_view()
    for number in range(6):
        harness.write(view, (key(id=number), {"number": integer(number)}, at(0)))

        def in_child(number=number):
            assert harness.read(view, key(id=number))[0][1]["number"] == integer(number)
            harness.write(view, (key(id=-number - 1), {"number": integer(number)}, at(0)))
            # And a child of its own.
            assert forked(lambda: harness.read(view, key(id=0)), fork) == 0

        assert forked(in_child, fork) == 0
        assert harness.read(view, key(id=-number - 1))[0][1]["number"] == integer(number)


@linux_only
def test_a_fork_does_not_wait_for_who_waits_for_the_writers_lock(harness):
    view = make_view()
    harness.write(view, (key(id=1), {"number": integer(1)}, at(0)))
    with Path(harness.config.online_store.path + ".lock").open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        row = (key(id=2), {"number": integer(2)}, at(0))
        writer = threading.Thread(target=harness.write, args=(view, row))
        writer.start()
        time.sleep(0.2)
        started = time.monotonic()
        assert forked(lambda: harness.read(view, key(id=1))[0][1]["number"]) == 0
        assert time.monotonic() - started < 5
        fcntl.flock(lock, fcntl.LOCK_UN)
        writer.join()
    row = (key(id=3), {"number": integer(3)}, at(0))
    assert forked(lambda: harness.write(view, row)) == 0
    numbers = [row["number"] for _, row in harness.read(view, key(id=2), key(id=3))]
    assert numbers == [integer(2), integer(3)]


@linux_only
def test_a_parent_that_is_killed_amid_a_write_leaves_no_lock_to_its_child(tmp_path):
    """A child that was forked during the write must not hold the lock on."""
    code = """
import os, threading
view = make_view()
harness.write(view, (key(id=1), {"number": integer(1)}, at(0)))
inside, forked = threading.Event(), threading.Event()
def rows():
    for number in range(5000):
        if number == 4000:
            inside.set()
            forked.wait()
        yield (key(id=number), {"number": integer(number)}, at(0), None)
class Rows(list):
    def __iter__(self):
        return rows()
    def __len__(self):
        return 5000
threading.Thread(target=lambda: harness.store.online_write_batch(
    harness.config, view, Rows([None]), None), daemon=True).start()
inside.wait(5)
child = os.fork()
if child == 0:
    sys.stdin.read()
    os._exit(0)
print("forked", flush=True)
os.kill(os.getpid(), 9)
"""
    with in_another_process(tmp_path, code) as parent:
        assert parent.stdout.readline() == "forked\n"
        parent.wait()
        harness = make_harness(tmp_path, busy_timeout=5.0)
        harness.write(make_view(), (key(id=-1), {"number": integer(7)}, at(0)))
        assert harness.read(make_view(), key(id=-1))[0][1]["number"] == integer(7)
        parent.stdin.close()


@linux_only
def test_a_child_holds_no_descriptors_of_its_parents(harness):
    view, path = make_view(), harness.config.online_store.path
    harness.write(view, (key(id=1), {"number": integer(1)}, at(0)))
    harness.read(view, key(id=1))

    def in_child():
        links = [str(f.readlink()) for f in Path("/proc/self/fd").iterdir() if f.exists()]
        assert not [link for link in links if link.startswith(path)], links

    assert forked(in_child) == 0


@linux_only
def test_a_build_goes_on_in_the_parent(tmp_path):
    """Forks neither wait for a build nor end it; a child searches and has nothing to build."""
    harness = make_harness(tmp_path, index_builds="background")
    engine, declaration = indexing.engine_and_view(harness, indexing.VIEW)
    points = indexing.vectors(indexing.ROWS)
    indexing.fill(harness, points)
    forks = 0
    until = time.monotonic() + 120
    while engine.is_building() and time.monotonic() < until:
        started = time.monotonic()

        def in_child():
            assert not engine.is_building()
            assert indexing.find(harness, points[7])[0][0][0] == 7

        if forks < 5:
            assert forked(in_child) == 0
            assert time.monotonic() - started < 30
        forks += 1
        time.sleep(0.05)
    assert forks > 0
    assert json.loads(engine.indexes(declaration))[0]["covers_change"] > 0


@linux_only
def test_a_fork_amid_optimize_waits_for_nothing(harness):
    """Another builder holds the lock: `optimize` waits for it, and the fork does not."""
    view = make_view()
    harness.write(view, (key(id=1), {"number": integer(1)}, at(0)))
    indexing.fill(harness, indexing.vectors(50))
    engine, declaration = indexing.engine_and_view(harness, indexing.VIEW)
    with Path(harness.config.online_store.path + ".index.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=engine.optimize, args=(declaration,))
        thread.start()
        time.sleep(0.2)

        def in_child():
            assert harness.read(view, key(id=1))[0][1]["number"] == integer(1)
            harness.write(view, (key(id=2), {"number": integer(2)}, at(0)))
            make_harness(harness.config.repo_path).read(view, key(id=1))

        assert forked(in_child) == 0
        fcntl.flock(lock, fcntl.LOCK_UN)
        thread.join()
    assert harness.read(view, key(id=2))[0][1]["number"] == integer(2)


def write_in_worker(number):
    """What a pool's worker does with the store that it inherited."""
    INHERITED[0].write(make_view(), (key(id=number), {"number": integer(number)}, at(0)))
    return INHERITED[0].read(make_view(), key(id=number))[0][1]["number"].int64_val


INHERITED = []


@linux_only
def test_a_pool_of_forked_workers_uses_the_store_that_it_inherited(harness):
    harness.write(make_view(), (key(id=-1), {"number": integer(-1)}, at(0)))
    INHERITED[:] = [harness]
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(write_in_worker, range(30)) == list(range(30))
    read = harness.read(make_view(), *(key(id=number) for number in range(30)))
    assert [row["number"].int64_val for _, row in read] == list(range(30))
