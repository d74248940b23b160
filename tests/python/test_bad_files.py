"""Files and folders that cannot be used: a clear error, and nothing lost."""

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import feast_vector
import pytest
from conftest import at, held_by_another_process, in_another_process, integer, key, make_view, text
from feast_vector import errors


def test_a_missing_folder(harness, tmp_path):
    harness.config.online_store.path = str(tmp_path / "no" / "such" / "folder" / "online.db")
    pattern = r"the folder '.*/no/such/folder' does not exist and cannot be created .*mend `path`"
    with pytest.raises(errors.StorageError, match=pattern) as caught:
        harness.write(make_view(), (key(id=1), {"number": integer(1)}, at(0)))
    assert caught.value.kind == "cannot_open"


def test_a_folder_in_place_of_a_file(harness, tmp_path):
    harness.config.online_store.path = str(tmp_path)
    with pytest.raises(errors.StorageError, match="`path` is a folder; add a file name"):
        harness.read(make_view(), key(id=1))


def test_memory_is_no_place(harness):
    harness.config.repo_path = None
    harness.config.online_store.path = ":memory:"
    with pytest.raises(errors.StorageError, match="cannot live in memory; set `path` to a file"):
        harness.read(make_view(), key(id=1))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes by name are Unix's")
@pytest.mark.parametrize("place", ["fifo", "/dev/null"])
def test_what_is_no_file_is_no_place(harness, tmp_path, place):
    if place == "fifo":
        place = str(tmp_path / "fifo.db")
        os.mkfifo(place)
    harness.config.online_store.path = place
    for use in (
        lambda: harness.read(make_view(), key(id=1)),
        lambda: harness.write(make_view(), (key(id=1), {"number": integer(1)}, at(0))),
        lambda: feast_vector.verify(place),
    ):
        with pytest.raises(errors.StorageError, match="is a pipe, a device or a socket"):
            use()
    assert not Path(place + ".lock").exists()


def test_the_home_folder_and_urls(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = feast_vector.VectorOnlineStoreConfig
    assert config(path="~/online.db").path == str(tmp_path / "online.db")
    assert config(path="data/~x").path == "data/~x"
    for url in ("sqlite:///online.db", "file:online.db?mode=memory", "s3://bucket/online.db"):
        with pytest.raises(ValueError, match="a file on this machine; write its path, not a URL"):
            config(path=url)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="permissions are Unix's")
@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_that_may_not_be_written(harness, tmp_path, exists):
    view = make_view()
    if exists:
        harness.write(view, (key(id=1), {"number": integer(1)}, at(0)))
    harness.store = pickle.loads(pickle.dumps(harness.store))
    folder = Path(harness.config.online_store.path).parent
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    for parent in list(folder.parents)[:3]:
        parent.chmod(parent.stat().st_mode | 0o755)
    try:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            if os.getuid() == 0:
                os.setuid(65534)
            try:
                harness.write(view, (key(id=2), {"number": integer(2)}, at(0)))
            except errors.StorageError as error:
                os.write(writing, f"{error.kind} {error}".encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(writing)
        said = os.read(reading, 10_000).decode()
    finally:
        folder.chmod(0o755)
    assert re.match("read_only " if exists else r"(read_only|cannot_open) ", said), said
    assert "folder" in said
    assert "writable" in said


def test_a_file_that_is_no_database(harness):
    Path(harness.config.online_store.path).write_text("These are notes, not a database. " * 40)
    pattern = r"online store '.*': the file is not a SQLite database; set another `path`"
    with pytest.raises(errors.FormatError, match=pattern) as caught:
        harness.read(make_view(), key(id=1))
    assert caught.value.kind == "not_a_feast_vector_file"
    assert Path(harness.config.online_store.path).read_text().startswith("These are notes")


def sql(path, *statements):
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for s in sys.argv[2:]: c.execute(s)"
    )
    subprocess.run([sys.executable, "-c", code, path, *statements], check=True)


def test_a_database_of_another_program(harness):
    sql(harness.config.online_store.path, "CREATE TABLE notes (text)")
    with pytest.raises(errors.FormatError, match="a SQLite database of another program"):
        harness.read(make_view(), key(id=1))


def test_a_database_of_a_newer_version(harness):
    harness.update([make_view()])
    asyncio_close(harness)
    sql(
        harness.config.online_store.path,
        "UPDATE _feast_vector_meta SET value = 'feast-vector 9.9.9' WHERE key = 'written_by'",
        "PRAGMA user_version = 99",
    )
    pattern = r"has format version 99, written by feast-vector 9.9.9; feast-vector .* reads up to"
    with pytest.raises(errors.FormatError, match=pattern) as caught:
        harness.read(make_view(), key(id=1))
    assert caught.value.kind == "newer_format"


def asyncio_close(harness):
    for engine in harness.store._engines.values():
        engine.close()


def test_a_damaged_database(harness):
    view = make_view()
    rows = [(key(id=i), {"name": text("x" * 500)}, at(0)) for i in range(500)]
    harness.write(view, *rows)
    asyncio_close(harness)
    path = Path(harness.config.online_store.path)
    content = bytearray(path.read_bytes())
    content[4096 * 8 : 4096 * 60] = b"\xa5" * (4096 * 52)
    path.write_bytes(content)
    pattern = r"online store '.*': the database is damaged; restore a backup, or move the file away"
    with pytest.raises(errors.FormatError, match=pattern):
        harness.read(view, *(key(id=i) for i in range(500)))


def test_a_database_that_another_process_holds_for_too_long(harness, tmp_path):
    view = make_view()
    harness.update([view])
    harness.config.online_store.busy_timeout = 0.3
    with held_by_another_process(tmp_path) as holder:
        start = time.monotonic()
        with pytest.raises(errors.BusyError, match=r"holds the database.*raise `busy_timeout`"):
            harness.write(view, (key(id=1), {"number": integer(1)}, at(0)))
        assert time.monotonic() - start < 20
        # Readers are not held up.
        assert harness.read(view, key(id=1)) == [(None, None)]
        holder.send_signal(signal.SIGKILL)
    harness.write(view, (key(id=1), {"number": integer(1)}, at(0)))
    assert harness.read(view, key(id=1)) == [(at(0), {"number": integer(1)})]


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is Unix's")
def test_a_disk_that_cannot_take_more(tmp_path):
    """A limit on file sizes stands for a full disk; `src/store` tests SQLite's own code for it."""
    child = in_another_process(
        tmp_path,
        """
import resource
from feast_vector import errors
view = make_view()
harness.write(view, (key(id=0), {"name": text("safe")}, at(0)))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
rows = [(key(id=i), {"name": text("x" * 1000)}, at(1)) for i in range(1000)]
try:
    harness.write(view, *rows)
except errors.StorageError as error:
    print(error.kind, error)
print(harness.read(view, key(id=0), key(id=1)) == [(at(0), {"name": text("safe")}), (None, None)])
""",
    )
    said = child.communicate(timeout=60)[0].splitlines()
    assert re.match(r"(io|disk_full) online store '.*vector.db': .*SQLite", said[0]), said
    assert said[1] == "True"
