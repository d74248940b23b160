"""Vector indexes through damage, killed builders, forks, and many at once."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import in_another_process, make_harness
from indexing import (
    ROWS,
    check,
    fill,
    find,
    optimize,
    segments,
    until,
    vectors,
)


@pytest.fixture
def filled(harness):
    """A store with an index that is up to date."""
    fill(harness, vectors(ROWS))
    assert optimize(harness)["rows"] == ROWS
    return harness


@pytest.mark.parametrize("damage", ["deleted", "cut", "flipped", "swapped", "emptied"])
def test_a_damaged_file_is_noticed_said_and_built_anew(filled, damage, tmp_path):
    query = vectors(1, seed=8)[0]
    right, explanation = find(filled, query)
    assert explanation["strategy"] == "index"
    [path] = segments(filled)
    whole = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    elif damage == "cut":
        # Not in place: that would take the pages from under whoever has the file mapped.
        replace(path, whole[: len(whole) // 2])
    elif damage == "flipped":
        broken = bytearray(whole)
        broken[len(broken) // 50] ^= 1
        replace(path, bytes(broken))
    elif damage == "emptied":
        replace(path, b"")
    else:
        other = make_harness(tmp_path / "other")
        fill(other, vectors(ROWS, seed=9))
        optimize(other)
        replace(path, segments(other)[0].read_bytes())
    with pytest.warns(RuntimeWarning, match="answers stay right without the index") as said:
        found, explanation = find(filled, query)
    assert path.name in str(said[0].message) or damage == "flipped"
    assert "'embedding'" in str(said[0].message)
    assert found == right
    assert explanation["strategy"].startswith("exact")
    until(lambda: find(filled, query)[1]["strategy"] == "index")
    assert find(filled, query)[0] == right
    assert segments(filled) != [path]


def replace(path, content):
    """Put another file in a file's place."""
    new = path.with_name("new")
    new.write_bytes(content)
    new.replace(path)


def test_a_whole_folder_that_is_gone(filled):
    query = vectors(1, seed=8)[0]
    right, _ = find(filled, query)
    folder = segments(filled)[0].parent
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    with pytest.warns(RuntimeWarning, match="it is not there"):
        assert find(filled, query)[0] == right
    until(lambda: find(filled, query)[1]["strategy"] == "index")


BUILDER = """
    import sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    from conftest import make_harness
    from indexing import optimize
    harness = make_harness(Path({folder!r}), index_builds="on_demand")
    print("ready", flush=True)
    while True:
        optimize(harness)
"""


def builder(tmp_path):
    """A process that builds the index again and again."""
    source = BUILDER.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    return process


def test_builders_that_are_killed_leave_nothing_that_hurts(tmp_path):
    harness = make_harness(tmp_path, index_builds="on_demand")
    data = vectors(ROWS)
    fill(harness, data)
    model = dict(enumerate(data))
    rng = np.random.default_rng(0)
    for step in range(5):
        process = builder(tmp_path)
        time.sleep(0.1 + 0.5 * rng.random())
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        check(harness, model, vectors(5, seed=step))
    assert optimize(harness)["rows"] == ROWS
    folder = segments(harness)[0].parent
    assert list(folder.iterdir()) == segments(harness)
    check(harness, model, vectors(30, seed=50))


def test_what_was_written_is_indexed_by_the_process_or_the_next_one(tmp_path):
    # As `feast materialize` does, which lets go of its store before the interpreter ends; that
    # waits a moment for the builder and leaves the rest to whoever searches next.
    code = "from indexing import *; fill(harness, vectors(ROWS)); del harness"
    with in_another_process(tmp_path, code) as process:
        assert process.wait(60) == 0
    harness = make_harness(tmp_path)
    query = vectors(1, seed=8)[0]
    until(lambda: find(harness, query)[1]["strategy"] == "index")
    assert len(segments(harness)) == 1


def test_searches_and_writes_go_on_while_others_build(tmp_path):
    harness = make_harness(tmp_path, index_builds="on_demand")
    data = vectors(ROWS)
    fill(harness, data)
    model = dict(enumerate(data))
    builders = [builder(tmp_path) for _ in range(2)]
    try:
        used_index = 0
        for step in range(40):
            query = vectors(1, seed=step)[0]
            fill(harness, query[np.newaxis], first=step, minute=1)
            model[step] = query
            found, explanation = find(harness, query)
            assert found[0] == (step, 0.0)
            used_index += explanation["strategy"] == "index"
        check(harness, model, vectors(10, seed=77))
        assert used_index > 0
        assert all(process.poll() is None for process in builders)
    finally:
        for process in builders:
            process.kill()
            process.wait()
            process.stdout.close()


def test_threads_that_search_while_rows_change(filled):
    data = vectors(200, seed=3)
    failures = []
    done = threading.Event()

    def search():
        while not done.is_set():
            found, _ = find(filled, data[0])
            if len(found) != 10 or any(b < a for (_, a), (_, b) in zip(found, found[1:])):  # noqa: B905, RUF007
                failures.append(found)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for step in range(30):
        fill(filled, data[step : step + 5], first=step * 5, minute=1)
        if step % 10 == 0:
            optimize(filled)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_fork_amid_a_build(harness):
    fill(harness, vectors(6000))
    query = vectors(1, seed=4)[0]
    right, _ = find(harness, query, exact=True)
    for _ in range(5):
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            status = 1
            try:
                os.write(writing, json.dumps(find(harness, query, exact=True)[0]).encode())
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            answer = pipe.read()
        assert os.waitpid(child, 0)[1] == 0
        assert [tuple(row) for row in json.loads(answer)] == right
        find(harness, query)
    until(lambda: find(harness, query)[1]["strategy"] == "index")


def test_a_disk_that_takes_no_index_is_said_and_answers_stay_right(tmp_path):
    harness = make_harness(tmp_path)
    # What should be a folder is a file.
    (tmp_path / "vector.db.index").write_text("")
    data = vectors(ROWS)
    fill(harness, data)
    until(lambda: find_warned(harness, vectors(1, seed=1)[0]))
    check(harness, dict(enumerate(data)), vectors(3, seed=2), floor=1)


def find_warned(harness, query):
    """Whether a search says that no index can be built there."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        find(harness, query)
    said = "vector.db.index' is not used: it is not a directory"
    return any(said in str(warning.message) for warning in caught)


MEMORY = """
    import sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    import numpy as np
    import indexing
    from conftest import make_harness

    def anonymous():
        for line in open("/proc/self/status"):
            if line.startswith("RssAnon"):
                return int(line.split()[1]) / 1024

    harness = make_harness(Path({folder!r}))
    indexing.engine_and_view(harness)[0].read(indexing.engine_and_view(harness)[1], [])
    before = anonymous()
    _, explanation = indexing.find(harness, np.ones(indexing.DIM))
    assert explanation["strategy"] == "index", explanation
    print(anonymous() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_vectors_in_segments_take_no_memory_of_their_own(harness, tmp_path):
    fill(harness, vectors(40_000))
    optimize(harness)
    source = MEMORY.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)], capture_output=True, text=True, check=True
    )
    # The vectors are 40 MiB.
    assert float(run.stdout) < 8
