"""Several processes and threads on one file; kill -9; fork; pickle."""

import multiprocessing
import os
import pickle
import random
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import dill
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
from feast import Field
from feast.types import Int64

unix_only = pytest.mark.skipif(sys.platform == "win32", reason="signals and fork are Unix's")


def test_writers_of_several_processes_lose_nothing(tmp_path):
    writers, batches, rows = 4, 25, 20
    code = """
view = vector_view(length=1, metric="L2")
for batch in range({batches}):
    harness.write(view, *(
        (key(id={writer} * 1_000_000 + batch * 1000 + row),
         {{"title": text("w{writer}"), "embedding": vector(batch)}}, at(0))
        for row in range({rows})
    ))
    # A counter that all of them raise: the last event must win.
    harness.write(view, (key(id=-1), {{"title": text(f"{writer}-{{batch}}")}}, at(batch)))
"""
    processes = [
        in_another_process(tmp_path, code.format(writer=writer, batches=batches, rows=rows))
        for writer in range(writers)
    ]
    reader, view = make_harness(tmp_path), vector_view(length=1, metric="L2")
    seen = 0
    while any(process.poll() is None for process in processes):
        found = reader.search(view, [0.0], 10_000)
        # Whole batches only, never fewer than before.
        assert len(found) % rows == 0
        assert len(found) >= seen
        seen = len(found)
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert len(reader.search(view, [0.0], 10_000)) == writers * batches * rows
    keys = [
        key(id=writer * 1_000_000 + batch * 1000 + row)
        for writer in range(writers)
        for batch in range(batches)
        for row in range(rows)
    ]
    assert all(row is not None for _, row in reader.read(view, *keys))
    assert reader.read(view, key(id=-1))[0][0] == at(batches - 1)


def test_threads_share_a_store(harness):
    view = vector_view(length=1, metric="L2")
    harness.update([view])

    def work(number):
        for step in range(30):
            entity = key(id=number * 100 + step)
            harness.write(
                view, (entity, {"title": text(str(step)), "embedding": vector(step)}, at(0))
            )
            assert harness.read(view, entity)[0][1]["title"] == text(str(step))
            assert len(harness.search(view, [0.0], 1_000)) >= step

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert len(harness.search(view, [0.0], 1_000)) == 180


@unix_only
@pytest.mark.parametrize("seed", range(6))
def test_kill_9_leaves_every_acknowledged_batch_whole(tmp_path, seed):
    rows = 400
    code = f"""
view = vector_view(length=8, metric="L2")
batch = 0
while True:
    harness.write(view, *(
        (key(id=batch * 1000 + row), {{"title": text(str(batch)), "embedding": vector(*[batch] * 8)}}, at(0))
        for row in range({rows})
    ))
    print(batch, flush=True)
    batch += 1
"""
    harness, view = make_harness(tmp_path), vector_view(length=8, metric="L2")
    with in_another_process(tmp_path, code) as process:
        for _ in range(3):
            process.stdout.readline()
        time.sleep(random.Random(seed).uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        acknowledged = 3 + len(process.stdout.read().splitlines())
    counts = []
    for batch in range(acknowledged + 2):
        found = harness.read(view, *(key(id=batch * 1000 + row) for row in range(rows)))
        counts.append(sum(row is not None for _, row in found))
    # The batch after the last acknowledged one may have been committed unheard, but whole.
    assert counts[:acknowledged] == [rows] * acknowledged
    assert counts[acknowledged] in (0, rows)
    assert counts[acknowledged + 1] == 0
    assert len(harness.search(view, [0.0] * 8, 10**6)) == sum(counts)
    harness.write(view, (key(id=-5), {"title": text("after")}, at(0)))
    assert harness.read(view, key(id=-5)) == [(at(0), {"title": text("after")})]


def child_result(work):
    """Run `work` in a forked child; its truth is the answer."""
    child = os.fork()
    if child == 0:
        try:
            answer = work()
        except BaseException as error:  # noqa: BLE001
            print(repr(error), file=sys.stderr)
            answer = False
        os._exit(0 if answer else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@unix_only
def test_fork_after_use(harness):
    view = vector_view(length=1, metric="L2")
    write = lambda i: harness.write(
        view, (key(id=i), {"title": text(str(i)), "embedding": vector(i)}, at(0))
    )
    write(0)
    assert len(harness.search(view, [0.0])) == 1

    def in_the_child(first):
        for i in range(first, first + 20):
            write(i)
            if len(harness.search(view, [0.0], 10_000)) < i - first:
                return False
        return True

    children = []
    for number in range(1, 4):
        child = os.fork()
        if child == 0:
            os._exit(0 if in_the_child(number * 1000) else 1)
        children.append(child)
        write(number)
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(harness.search(view, [0.0], 10_000)) == 64


@unix_only
def test_fork_while_other_threads_work(harness):
    view = vector_view(length=1, metric="L2")
    harness.update([view])
    stop = threading.Event()

    def work(number):
        step = 0
        while not stop.is_set():
            step += 1
            entity = key(id=number * 100_000 + step)
            harness.write(view, (entity, {"title": text("t"), "embedding": vector(step)}, at(0)))
            harness.search(view, [0.0])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(10):
            entity = key(id=-1 - number)
            assert child_result(
                lambda entity=entity: (
                    harness.write(view, (entity, {"title": text("child")}, at(0))) is None
                    and len(harness.search(view, [0.0], 1)) <= 1
                )
            )
            assert harness.read(view, entity)[0][1] == {"title": text("child")}
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def read_in_worker(argument):
    """What Ray and Spark do: unpickle the store, or rebuild it, and work with it."""
    store, config, view, number = argument
    store.online_write_batch(
        config, view, [(key(id=number), {"number": integer(number)}, at(0), None)], None
    )
    ((time, row),) = store.online_read(config, view, [key(id=number)])
    return time, row["number"].int64_val  # Feast's protos themselves cannot be pickled.


def test_a_pickled_store_works_in_another_process(harness):
    view = make_view()
    harness.write(view, (key(id=0), {"number": integer(0)}, at(0)))
    copy = pickle.loads(pickle.dumps(harness.store))
    assert copy._engines == {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        rows = list(
            pool.map(read_in_worker, [(harness.store, harness.config, view, i) for i in range(4)])
        )
    assert rows == [(at(0), i) for i in range(4)]


def test_the_file_of_feasts_own_sqlite_store_is_shared(tmp_path):
    """A repo that changes only `type: sqlite` to `type: vector` points us at that store's file."""
    code = """
view = make_view()
harness.update([view])
harness.write(view, (key(id=1), {"number": integer(1)}, at(0)))
print("written", flush=True)
sys.stdin.readline()
harness.write(view, (key(id=2), {"number": integer(2)}, at(0)))
print([row["number"].int64_val for _, row in harness.read(view, key(id=1), key(id=2))], flush=True)
"""
    with in_another_process(tmp_path, code, kind="sqlite") as theirs:
        assert theirs.stdout.readline() == "written\n"
        ours, view = make_harness(tmp_path), make_view()
        ours.config.online_store.path = str(tmp_path / "sqlite.db")
        with (
            pytest.warns(RuntimeWarning, match="has no tables of feast-vector yet"),
            pytest.warns(UserWarning, match="run `feast-vector import`"),
        ):
            assert ours.read(view, key(id=1)) == [(None, None)]
        with pytest.warns(UserWarning, match="run `feast-vector import`"):
            ours.update([view])
        ours.write(view, (key(id=1), {"number": integer(10)}, at(0)))
        # Who still serves from the old store goes on, on its own tables.
        theirs.stdin.write("\n")
        theirs.stdin.flush()
        assert theirs.stdout.readline() == "[1, 2]\n"
    assert ours.read(view, key(id=1), key(id=2)) == [
        (at(0), {"number": integer(10)}),
        (None, None),
    ]
    assert sql_elsewhere(ours, "SELECT number FROM shop_items_2") == [(10,)]
    assert sql_elsewhere(ours, "SELECT count(DISTINCT entity_key) FROM shop_items") == [(2,)]


def test_dill_as_feasts_spark_engine_uses_it(harness):
    view = make_view()
    harness.write(view, (key(id=0), {"number": integer(0)}, at(0)))
    store, config = dill.loads(dill.dumps((harness.store, harness.config)))
    assert store.online_read(config, view, [key(id=0)]) == harness.read(view, key(id=0))


def test_creating_a_store_opens_nothing(tmp_path):
    harness = make_harness(tmp_path)
    assert harness.store._engines == {}
    assert not list(tmp_path.glob("*.db*"))


# --- a search that is under way sees no half of a write


def test_searches_beside_writers_see_whole_batches(tmp_path):
    harness = make_harness(tmp_path, text_search_enabled=True)
    view = vector_view(metric="L2")
    view.features.append(Field(name="number", dtype=Int64))
    rows = 20

    def write(round_):
        harness.write(
            view,
            *(
                (
                    key(id=i),
                    {
                        "title": text(f"round{round_}"),
                        "embedding": vector(i, round_),
                        "number": integer(round_),
                    },
                    at(round_),
                )
                for i in range(rows)
            ),
        )

    write(0)
    code = """
view = vector_view(metric="L2")
view.features.append(Field(name="number", dtype=Int64))
for r in range(1, 120):
    harness.write(view, *(
        (key(id=i), {"title": text(f"round{r}"), "embedding": vector(i, r), "number": integer(r)}, at(r))
        for i in range(20)
    ))
"""
    code = "harness = make_harness(harness.config.repo_path, text_search_enabled=True)\n" + code
    with in_another_process(tmp_path, "from feast import Field\n" + code) as writer:
        searches = 0
        seen = set()
        while writer.poll() is None or searches < 50:
            searches += 1
            found = harness.find(view, [0.0, 0.0], top_k=100, features=["title", "number"])
            rounds = {(row["title"].string_val, row["number"].int64_val) for _, row in found}
            assert (len(found), len(rounds)) == (rows, 1)
            ((title, number),) = rounds
            assert title == f"round{number}"
            seen.add(number)
            wanted = {"type": "gte", "key": "number", "value": number}
            assert len(harness.find(view, [0.0, 0.0], filters=wanted, top_k=100)) == rows
            assert len(harness.find(view, text=f"round{number}", top_k=100)) in (0, rows)
        assert writer.returncode == 0
    assert len(seen) > 1
