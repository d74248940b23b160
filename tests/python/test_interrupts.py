"""No panic leaves the core, Ctrl-C ends long work, warnings fail nothing, and threads are optional."""

import fcntl
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import at, integer, key, make_harness, make_view, text
from feast_vector import _core, errors, views
from indexing import ROWS, fill, find, optimize, segments, vectors

ROOT = Path(__file__).parents[2]


def entries(source):
    """Every function that Python calls, with the first line of its body."""
    for block in re.findall(
        r"^#\[pymethods\]\nimpl \w+ \{\n(.*?)^\}", source, re.MULTILINE | re.DOTALL
    ):
        yield from re.findall(
            r"^    fn (\w+).*?(?:-> [^\n]*|\)) \{\n\s*(.*?)$", block, re.MULTILINE | re.DOTALL
        )
    for block in re.findall(r"^#\[pyfunction\]\n(.*?)^\}", source, re.MULTILINE | re.DOTALL):
        yield from re.findall(
            r"fn (\w+).*?(?:-> [^\n]*|\)) \{\n\s*(.*?)$", block, re.MULTILINE | re.DOTALL
        )


def test_every_entry_of_the_core_catches_panics():
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "src/py").glob("*.rs")]
    found = [entry for source in sources for entry in entries(source)]
    names = {name for name, _ in found}
    calls = [name for name in dir(_core.Engine) if not name.startswith("_")]
    assert set(calls) <= names
    assert {"new", "__repr__", "error_kinds", "serialize_values"} <= names
    assert [(name, body) for name, body in found if not body.startswith("run(")] == []


# --- Ctrl-C and what callbacks raise


@pytest.fixture
def texts(tmp_path):
    """A store whose view is to get a text index."""
    view = make_view()
    make_harness(tmp_path).write(
        view, *((key(id=i), {"name": text("some words")}, at(0)) for i in range(3000))
    )
    return make_harness(tmp_path, text_search_enabled=True), view


@pytest.mark.parametrize("raised", [KeyboardInterrupt, LookupError("no bar")])
def test_what_a_progress_callback_raises_ends_apply(texts, raised):
    harness, view = texts
    engine = harness.store.engine(harness.config)

    def progress(*_):
        if raised is KeyboardInterrupt:
            signal.raise_signal(signal.SIGINT)
        else:
            raise raised

    kind = raised if isinstance(raised, type) else type(raised)
    with pytest.raises(kind):
        engine.apply("shop", [views.declaration(harness.config, view)], [], progress)
    # The index is filled in pieces; the next apply goes on where this one was.
    harness.update(keep=[view])
    found = harness.find(view, text="words", top_k=5000)
    assert len(found) == 3000


def test_ctrl_c_ends_a_statement_that_would_never_end(harness):
    engine = harness.store.engine(harness.config)
    harness.write(make_view(), (key(id=1), {"number": integer(1)}, at(0)))
    threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        engine.sql(
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT count(*) FROM c", []
        )
    assert harness.read(make_view(), key(id=1))[0][1]["number"] == integer(1)


def test_ctrl_c_ends_a_write_that_waits_for_the_lock(harness):
    view = make_view()
    harness.write(view, (key(id=1), {"number": integer(1)}, at(0)))
    online = harness.config.online_store
    lock = Path(harness.config.repo_path or "") / f"{online.path}.lock"
    with lock.open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            harness.write(view, (key(id=1), {"number": integer(2)}, at(1)))
    assert harness.read(view, key(id=1))[0][1]["number"] == integer(1)
    harness.write(view, (key(id=1), {"number": integer(3)}, at(1)))
    assert harness.read(view, key(id=1))[0][1]["number"] == integer(3)


def test_a_stream_that_breaks_off_leaves_nothing(harness):
    view = make_view()
    engine = harness.store.engine(harness.config)
    declaration = views.declaration(harness.config, view)
    harness.write(view, (key(id=0), {"number": integer(0)}, at(0)))

    def batches():
        for start in range(1, 3000, 500):
            if start > 2000:
                raise KeyboardInterrupt
            ids = range(start, start + 500)
            times = pa.array([1] * 500, pa.timestamp("us"))
            keys = pa.array([key(id=i).SerializeToString() for i in ids], pa.binary())
            yield pa.record_batch([keys, times, times, numbers(500)], schema=schema)

    def numbers(count):
        return pa.array([integer(5).SerializeToString()] * count, pa.binary())

    stamp = pa.timestamp("us")
    schema = pa.schema(
        [
            ("entity_key", pa.binary()),
            ("event_timestamp", stamp),
            ("created_timestamp", stamp),
            ("number", pa.binary()),
        ]
    )
    with pytest.raises((KeyboardInterrupt, errors.FeastVectorError)):
        engine.write(declaration, pa.RecordBatchReader.from_batches(schema, batches()))
    assert engine.count(declaration) == 1


# --- warnings


def test_a_warning_that_is_an_error_fails_no_search(harness, caplog):
    fill(harness, vectors(ROWS))
    optimize(harness)
    query = vectors(1, seed=8)[0]
    right, _ = find(harness, query)
    [path] = segments(harness)
    path.unlink()
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, "feast_vector"):
        warnings.simplefilter("error")
        assert find(harness, query)[0] == right
        assert find(harness, query)[0] == right
    said = [record.getMessage() for record in caplog.records if record.name == "feast_vector"]
    assert len(said) == 1
    assert "answers stay right without the index" in said[0]


# --- no threads to be had


def test_without_threads_everything_is_done_by_the_calling_one(tmp_path):
    source = f"""
        import os, resource, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from conftest import make_harness
        from indexing import ROWS, engine_and_view, fill, find, optimize, vectors
        import numpy as np, pyarrow as pa
        pa.set_cpu_count(1); pa.set_io_thread_count(1)
        harness = make_harness(Path({str(tmp_path)!r}), search_threads=8)
        fill(harness, vectors(1))
        engine, view = engine_and_view(harness)
        engine.close()
        if os.geteuid() == 0:
            for path in [Path({str(tmp_path)!r}), *Path({str(tmp_path)!r}).rglob("*")]:
                os.chmod(path, 0o777)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        if os.geteuid() == 0:
            os.setuid(65534)
        import threading
        try:
            threading.Thread(target=print).start()
        except RuntimeError:
            print("no threads")
        data = vectors(ROWS)
        fill(harness, data)
        exact = [find(harness, query, exact=True)[0] for query in data[:3]]
        assert optimize(harness)["rows"] == ROWS
        found = [find(harness, query) for query in data[:3]]
        print([hits[0] for hits, _ in found] == [hits[0] for hits in exact], found[0][1]["strategy"])
        print(engine.is_building())
    """
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and parent != Path(parent.root):
            parent.chmod(parent.stat().st_mode | 0o011)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.splitlines() == ["no threads", "True index", "False"], done.stderr
