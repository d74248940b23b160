"""Vector indexes: what is found by them is what is there, whatever happens meanwhile."""

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
from conftest import at, integer, key, make_harness, text, vector_view
from feast import Field
from feast.filter_models import ComparisonFilter
from feast.protos.feast.types.Value_pb2 import FloatList, Value
from feast.types import Array, Float64, Int64
from feast_vector import protos, views

# 1 KiB a vector: an index is worth it from 2 MiB on.
DIM = 256
ROWS = 3000


def vectors(count, seed=0, clusters=40):
    """Vectors around a few centres, which are the same for every seed."""
    centres = np.random.default_rng(99).standard_normal((clusters, DIM))
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, DIM)) * 0.6
    return (centres[rng.integers(0, clusters, count)] + noise).astype("float32")


def make_index_view(metric="L2", **tags):
    """A view whose vectors are indexed."""
    view = vector_view(length=DIM, metric=metric)
    view.features[-1].tags.update({f"feast_vector.{name}": tag for name, tag in tags.items()})
    return view


VIEW = make_index_view()


def fill(harness, rows, first=0, view=VIEW, minute=0):
    """Write vectors under ids from `first` on."""
    batch = [
        (
            key(id=first + i),
            {"title": text(f"t{first + i}"), "embedding": Value(float_list_val=FloatList(val=row))},
            at(minute),
        )
        for i, row in enumerate(rows)
    ]
    harness.write(view, *batch)


def engine_and_view(harness, view=VIEW):
    """The core, to ask it directly."""
    return harness.store.engine(harness.config), views.declaration(harness.config, view)


def find(harness, query, view=VIEW, top_k=10, exact=False):
    """Ids and distances of the nearest rows, and how they were found."""
    engine, declaration = engine_and_view(harness, view)
    batch, explanation = engine.search(
        declaration,
        top_k=top_k,
        feature="embedding",
        queries=np.asarray(query, dtype="float64")[np.newaxis],
        metric=view.features[-1].vector_search_metric,
        features=[],
        exact=exact,
        explain=True,
        typed=True,
    )
    found = list(zip(batch["id"].to_pylist(), batch["distance"].to_pylist(), strict=True))
    return found, json.loads(explanation)


def optimize(harness, view=VIEW):
    """Build the index now."""
    engine, declaration = engine_and_view(harness, view)
    return json.loads(engine.optimize(declaration))["embedding"]


def segments(harness, view=VIEW):
    """The index's files."""
    engine, declaration = engine_and_view(harness, view)
    indexes = json.loads(engine.indexes(declaration))
    return [Path(segment["file"]) for index in indexes for segment in index["segments"]]


def until(condition, seconds=60):
    """Wait for something that is under way."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def check(harness, model, queries, view=VIEW, floor=0.97):
    """What is found is right, and nearly all that is there to be found."""
    ids = np.array(sorted(model))
    matrix = np.array([model[i] for i in ids], dtype="float64")
    hits = total = 0
    for query in queries:
        found, _ = find(harness, query, view)
        true = np.sqrt(((matrix - query.astype("float64")) ** 2).sum(1))
        worst = np.sort(true)[min(10, len(ids)) - 1]
        by_id = dict(zip(ids.tolist(), true.tolist(), strict=True))
        assert len(found) == min(10, len(ids))
        for row, distance in found:
            assert row in by_id, "a row that is not there"
            assert distance == pytest.approx(by_id[row], abs=1e-4), "an old vector"
        hits += sum(distance <= worst + 1e-6 for _, distance in found)
        total += len(found)
    assert hits / max(total, 1) >= floor


@pytest.fixture
def filled(harness):
    """A store with an index that is up to date."""
    fill(harness, vectors(ROWS))
    assert optimize(harness)["rows"] == ROWS
    return harness


def test_an_index_comes_by_itself_and_answers_as_the_exact_scan_does(harness):
    data, queries = vectors(ROWS), vectors(50, seed=1)
    fill(harness, data)
    model = dict(enumerate(data))
    check(harness, model, queries[:5], floor=1)
    until(lambda: segments(harness))
    check(harness, model, queries)
    _, explanation = find(harness, queries[0])
    assert explanation["strategy"] == "index"
    assert explanation["vectors_in_no_segment"] == 0
    assert explanation["codes_scanned"] == ROWS
    assert explanation["codes_refined"] < ROWS / 4
    assert explanation["vectors_measured"] < 60
    found, explanation = find(harness, queries[0], exact=True)
    assert explanation["strategy"] == "exact scan of all vectors"
    assert [row for row, _ in found] == [row for row, _ in find(harness, queries[0])[0]]


def test_few_vectors_need_no_index(harness):
    fill(harness, vectors(100))
    assert optimize(harness) is None
    assert segments(harness) == []
    assert find(harness, vectors(1, seed=1)[0])[1]["strategy"].startswith("exact")


def test_what_another_process_writes_is_found_at_once(filled, tmp_path):
    other = make_harness(tmp_path)
    model = dict(enumerate(vectors(ROWS)))
    queries = vectors(6, seed=2)
    for step, query in enumerate(queries):
        assert find(filled, query)[1]["segments"] == 1
        # Written anew, written first, and deleted.
        fill(other, query[np.newaxis], first=step * 7, minute=1)
        fill(other, query[np.newaxis] + 0.01, first=ROWS + step, minute=1)
        nearest = find(filled, query)[0]
        assert [row for row, _ in nearest[:2]] == [step * 7, ROWS + step]
        engine, declaration = engine_and_view(other)
        gone = nearest[2][0]
        assert engine.delete(declaration, protos.serialize_keys([key(id=gone)])) == 1
        assert gone not in [row for row, _ in find(filled, query)[0]]
        model |= {step * 7: query, ROWS + step: query + 0.01}
        del model[gone]
    check(filled, model, queries)
    assert optimize(other)["rows"] == len(model)
    check(filled, model, queries)
    check(filled, model, vectors(20, seed=3))


def test_it_is_right_through_everything_that_happens(harness, tmp_path):
    rng = np.random.default_rng(5)
    other = make_harness(tmp_path)
    model = {}
    for step in range(24):
        minute = step + 1
        writer = other if rng.random() < 0.5 else harness
        action = rng.choice(["much", "little", "delete", "optimize", "reopen", "overwrite"])
        if action in ("much", "little") or not model:
            count = 2100 if action == "much" else 40
            first = int(rng.integers(0, 5000))
            data = vectors(count, seed=100 + step)
            fill(writer, data, first=first, minute=minute)
            model |= dict(zip(range(first, first + count), data, strict=True))
        elif action == "overwrite":
            chosen = rng.choice(sorted(model), size=200)
            for row, data in zip(chosen.tolist(), vectors(200, seed=step), strict=True):
                model[row] = data
            engine_rows = sorted(set(chosen.tolist()))
            batch = [
                (
                    key(id=row),
                    {"embedding": Value(float_list_val=FloatList(val=model[row]))},
                    at(minute),
                )
                for row in engine_rows
            ]
            writer.write(VIEW, *batch)
        elif action == "delete":
            engine, declaration = engine_and_view(writer)
            chosen = rng.choice(sorted(model), size=min(300, len(model) - 20), replace=False)
            engine.delete(declaration, protos.serialize_keys([key(id=int(row)) for row in chosen]))
            for row in chosen.tolist():
                del model[row]
        elif action == "optimize":
            optimize(writer)
        else:
            engine_and_view(harness)[0].close()
        queries = vectors(4, seed=1000 + step)
        check(harness, model, queries)
        check(other, model, queries)
    optimize(harness)
    check(other, model, vectors(40, seed=7))


def test_growth_merges_segments_and_clears_up(harness):
    for step in range(8):
        fill(harness, vectors(2100, seed=step), first=step * 2100)
        before = len(segments(harness))
        until(lambda: find(harness, np.ones(DIM))[1]["vectors_in_no_segment"] == 0)
        assert len(segments(harness)) <= max(4, before + 1)
    folder = segments(harness)[0].parent
    until(lambda: sorted(folder.iterdir()) == sorted(segments(harness)))


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
    import test_index
    harness = test_index.make_harness(Path({folder!r}), index_builds="on_demand")
    print("ready", flush=True)
    while True:
        test_index.optimize(harness)
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


def test_dropping_and_making_anew(filled, tmp_path):
    query = vectors(1, seed=4)[0]
    folder = segments(filled)[0].parent
    filled.update(delete=[VIEW])
    assert find(filled, query)[0] == []
    fill(filled, vectors(5, seed=6))
    assert len(find(filled, query)[0]) == 5
    filled.store.teardown(filled.config, [VIEW], [])
    assert list(folder.iterdir()) == []
    fill(filled, vectors(ROWS, seed=6))
    optimize(filled)
    check(filled, dict(enumerate(vectors(ROWS, seed=6))), vectors(10, seed=1))


def test_schema_changes(filled):
    model = dict(enumerate(vectors(ROWS)))
    queries = vectors(10, seed=1)
    wider = make_index_view()
    wider.features.insert(0, Field(name="extra", dtype=Int64))
    filled.update(keep=[wider])
    check(filled, model, queries, view=wider)
    assert find(filled, queries[0], view=wider)[1]["strategy"] == "index"
    # As doubles the vectors are other numbers to search in, and need another index.
    double = vector_view(length=DIM, metric="L2", dtype=Array(Float64))
    filled.update(keep=[double])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        check(filled, model, queries, view=double)
    optimize(filled, double)
    check(filled, model, queries, view=double)
    assert find(filled, queries[0], view=double)[1]["strategy"] == "index"
    # The feature gone and back is empty.
    bare = make_index_view()
    bare.features.pop()
    filled.update(keep=[bare])
    filled.update(keep=[VIEW])
    assert find(filled, queries[0])[0] == []
    assert segments(filled) == []


def test_another_metric_is_another_index(filled):
    query = vectors(1, seed=1)[0]
    cosine = make_index_view(metric="cosine")
    found, explanation = find(filled, query, view=cosine)
    assert explanation["strategy"].startswith("exact")
    until(lambda: find(filled, query, view=cosine)[1]["strategy"] == "index")
    again = find(filled, query, view=cosine)[0]
    assert [row for row, _ in again] == [row for row, _ in found]


def test_rows_that_expire(tmp_path):
    harness = make_harness(tmp_path, key_ttl_seconds=2)
    data = vectors(ROWS)
    fill(harness, data)
    lasting = make_harness(tmp_path)
    fill(lasting, data[:100], minute=1)
    optimize(lasting)
    query = vectors(1, seed=1)[0]
    until(lambda: len(find(lasting, query, top_k=200)[0]) == 100)
    assert find(lasting, query)[1]["strategy"] == "index"
    assert {row for row, _ in find(lasting, query, top_k=200)[0]} == set(range(100))


def test_filters(tmp_path):
    harness = make_harness(tmp_path)
    view = make_index_view()
    view.features.insert(0, Field(name="number", dtype=Int64))
    data = vectors(ROWS)
    rows = [
        (
            key(id=i),
            {"number": integer(i % 100), "embedding": Value(float_list_val=FloatList(val=row))},
            at(0),
        )
        for i, row in enumerate(data)
    ]
    harness.write(view, *rows)
    optimize(harness, view)
    query = vectors(1, seed=1)[0]
    true = ((data.astype("float64") - query) ** 2).sum(1)
    for below in (1, 10, 50):
        condition = ComparisonFilter(type="lt", key="number", value=below)
        ids = harness.find_ids(view, query.tolist(), filters=condition)
        passing = [i for i in range(ROWS) if i % 100 < below]
        assert ids == sorted(passing, key=lambda i: true[i])[:10]


def test_recall_on_queries_that_were_not_there_at_build(tmp_path):
    harness = make_harness(tmp_path)
    for recall in ("0.9", "0.99"):
        view = make_index_view(index_type="ivf", target_recall=recall)
        data = vectors(6000, clusters=300)
        fill(harness, data, view=view)
        report = optimize(harness, view)
        assert report["lists"] > 50
        assert report["target_recall"] == float(recall)
        tens = [point for point in report["curve"] if point["top_k"] == 10]
        assert any(point["recall"] >= float(recall) for point in tens)
        queries = vectors(300, seed=1, clusters=300)
        hits = 0
        for query in queries:
            found, explanation = find(harness, query, view)
            true = np.sqrt(((data - query).astype("float64") ** 2).sum(1))
            hits += sum(distance <= np.sort(true)[9] + 1e-6 for _, distance in found)
            assert explanation["lists_probed"] < report["lists"]
        assert hits / 3000 >= float(recall) - 0.005


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"index_type": "hnsw"}, "'hnsw' is none of auto, flat, ivf"),
        ({"target_recall": "1.5"}, r"'1.5' is no number from 0.5 to 1"),
        ({"target_recall": "high"}, r"'high' is no number from 0.5 to 1"),
    ],
)
def test_wrong_tags(harness, tags, message):
    with pytest.raises(ValueError, match=message) as error:
        fill(harness, vectors(1), view=make_index_view(**tags))
    assert "feature 'embedding'" in str(error.value)


def test_a_disk_that_takes_no_index_is_said_and_answers_stay_right(tmp_path):
    harness = make_harness(tmp_path)
    # What should be a folder is a file.
    (tmp_path / "vector.db.index").write_text("")
    data = vectors(ROWS)
    fill(harness, data)
    until(lambda: find_warned(harness, vectors(1, seed=1)[0]))
    check(harness, dict(enumerate(data)), vectors(3, seed=2), floor=1)


def find_warned(harness, query):
    """Whether a search says that the index cannot be built."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        find(harness, query)
    return any("cannot build the vector index" in str(warning.message) for warning in caught)


MEMORY = """
    import sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    import numpy as np
    import test_index

    def anonymous():
        for line in open("/proc/self/status"):
            if line.startswith("RssAnon"):
                return int(line.split()[1]) / 1024

    harness = test_index.make_harness(Path({folder!r}))
    test_index.engine_and_view(harness)[0].read(test_index.engine_and_view(harness)[1], [])
    before = anonymous()
    _, explanation = test_index.find(harness, np.ones(test_index.DIM))
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
