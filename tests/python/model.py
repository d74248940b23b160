"""A seeded model: several processes use one store, and every answer is compared with a dict.

Each step takes an operation and a process by chance; the same seed takes the same. Processes write
(rows and Arrow), delete, apply, index, fork, close, and are killed amid a write; and the file
is backed up, verified and restored beneath them. `python model.py SEED [STEPS]` replays a run and
prints its steps.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np

DIM = 256
ROWS = 2_300
"""Enough vectors for an index."""
WORDS = ["red", "blue", "lamp", "chair", "vase", "old"]
TTL = 2
"""Seconds until a row expires that was written to."""


def vector(row, version):
    """The embedding that a version of a row has."""
    return np.random.default_rng((row, version)).normal(size=DIM).astype("f4")


def title(row, version):
    """The title that a version of a row has."""
    chance = random.Random(row * 1_000_003 + version)
    return f"{chance.choice(WORDS)} {chance.choice(WORDS)} v{version}"


def number(row, version):
    """The number that a version of a row has; null now and then."""
    return None if (row + version) % 11 == 0 else (row * 7 + version) % 1000


# --- what a process does, told by lines of JSON


class Actor:
    """One process's use of the store."""

    def __init__(self, folder, builds):
        from conftest import make_harness, vector_view
        from crash_images import open_native
        from feast import Field
        from feast.types import Int64

        self.folder, self.open_native = Path(folder), open_native
        self.view = vector_view(length=DIM, metric="L2")
        self.view.features.append(Field(name="number", dtype=Int64))
        self.extra = Field(name="extra", dtype=Int64)
        options = {"index_builds": builds, "text_search_enabled": True, "busy_timeout": 60}
        self.harness = make_harness(self.folder, durability="normal", **options)
        self.expiring = make_harness(
            self.folder, durability="normal", key_ttl_seconds=TTL, **options
        )
        # One engine, whose rows expire or do not.
        self.expiring.store = self.harness.store
        self.native = self.opened(self.harness)

    def opened(self, harness):
        return self.open_native(harness, self.view)

    def has_extra(self):
        return any(field.name == "extra" for field in self.view.features)

    def apply(self, extra, drop):
        if drop:
            self.harness.update(delete=[self.view])
        self.know(extra)
        self.harness.update(keep=[self.view])

    def know(self, extra):
        """Take note of what the view is now."""
        features = [field for field in self.view.features if field.name != "extra"]
        self.view.features = [*features, self.extra] if extra else features
        self.native = self.opened(self.harness)

    def write(self, ids, version, ttl, arrow):
        import pyarrow as pa
        from conftest import integer, key, text
        from conftest import vector as value
        from feast.protos.feast.types.Value_pb2 import Value

        harness = self.expiring if ttl else self.harness
        if not arrow:
            rows = []
            for row in ids:
                n = number(row, version)
                values = {
                    "title": text(title(row, version)),
                    "embedding": value(*vector(row, version).tolist()),
                    "number": Value() if n is None else integer(n),
                }
                if self.has_extra():
                    values["extra"] = integer(version)
                rows.append((key(id=row), values, at(version)))
            harness.write(self.view, *rows)
            return
        columns = {
            "id": pa.array(ids, pa.int64()),
            "title": [title(row, version) for row in ids],
            "embedding": pa.array([vector(row, version) for row in ids], pa.list_(pa.float32())),
            "number": pa.array([number(row, version) for row in ids], pa.int64()),
            "event_timestamp": pa.array([at(version)] * len(ids), pa.timestamp("us", "UTC")),
        }
        if self.has_extra():
            columns["extra"] = pa.array([version] * len(ids), pa.int64())
        self.opened(harness).write_arrow(pa.table(columns))

    def delete(self, ids):
        return self.native.delete(ids)

    def optimize(self):
        self.native.optimize()

    def close(self):
        import asyncio

        asyncio.run(self.harness.store.close())

    def backup(self, target):
        import feast_vector

        feast_vector.backup(self.path(), target, replace=True)

    def restore(self, source):
        import feast_vector

        feast_vector.restore(self.path(), source, keep=False)

    def verify(self):
        import feast_vector

        return feast_vector.verify(self.path())["findings"]

    def path(self):
        return self.harness.config.online_store.path

    def read(self, ids):
        features = ["title", "number"] + (["extra"] if self.has_extra() else [])
        return self.native.read(ids, features, as_dict=True)

    def count(self):
        return self.native.count()

    def search(self, query, **options):
        query = None if query is None else vector(*query)
        found = self.native.search(query, features=["number"], as_dict=True, **options)
        return {name: column for name, column in found.items() if name != "event_timestamp"}


def at(version):
    """The event time of a version."""
    from conftest import at as minutes_from_noon

    return minutes_from_noon(version / 60)


def serve(folder, builds):
    """Do what the lines on stdin say."""
    warnings.simplefilter("ignore")
    actor = Actor(folder, builds)
    for line in sys.stdin:
        what, arguments = json.loads(line)
        if what == "fork":
            child = os.fork()
            if child:
                os.waitpid(child, 0)
                os._exit(0)
            answer = None
        else:
            try:
                answer = getattr(actor, what)(**arguments)
            except Exception:  # noqa: BLE001
                print(json.dumps({"error": traceback.format_exc()}), flush=True)
                continue
        print(json.dumps({"answer": answer}, default=str), flush=True)


class Process:
    """An actor in a process of its own."""

    def __init__(self, folder, builds):
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import model; "
        self.builds = builds
        self.process = subprocess.Popen(
            [sys.executable, "-c", code + f"model.serve({str(folder)!r}, {builds!r})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def tell(self, what, **arguments):
        self.process.stdin.write(json.dumps([what, arguments]) + "\n")
        self.process.stdin.flush()

    def answer(self):
        line = self.process.stdout.readline()
        assert line, "the process has ended"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["answer"]

    def do(self, what, **arguments):
        self.tell(what, **arguments)
        return self.answer()

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


# --- the model


class Run:
    """A run of one seed. `rows` maps an id to its version, and `expiries` when it expires."""

    def __init__(self, folder, seed, tell=print):
        self.folder, self.seed, self.tell = Path(folder), seed, tell
        self.chance = random.Random(seed)
        self.rows, self.expiries, self.extras = {}, {}, {}
        self.extra, self.version = False, 0
        self.backups = []
        self._known = {}
        self.processes = [self.start("background"), self.start("on_demand")]
        self.do_write(self.processes[0], ids=list(range(ROWS)), arrow=True)

    def start(self, builds):
        return Process(self.folder / "store", builds)

    def any_process(self):
        return self.chance.choice(self.processes)

    def step(self):
        names = [name for name in dir(self) if name.startswith("do_")]
        weights = [6 if name == "do_write" else 1 for name in names]
        name = self.chance.choices(names, weights)[0]
        getattr(self, name)(self.any_process())
        self.check()

    def say(self, what, *rest):
        self.tell(f"seed {self.seed}, version {self.version}: {what}", *rest)

    def some_ids(self):
        count = self.chance.choice([1, 5, 100, 1100])
        return self.chance.sample(range(ROWS + 100), count)

    def take(self, ids, version, ttl):
        """What a write does to the rows."""
        for row in ids:
            self.rows[row] = version
            self.expiries[row] = time.time() + TTL if ttl else None
            if self.extra:
                self.extras[row] = version

    def do_write(self, process, ids=None, arrow=None):
        self.version += 1
        ids = self.some_ids() if ids is None else ids
        ttl = self.chance.random() < 0.1 and len(ids) < 500
        arrow = self.chance.random() < 0.5 if arrow is None else arrow
        self.say("write", len(ids), "expiring" if ttl else "", "Arrow" if arrow else "")
        process.do("write", ids=ids, version=self.version, ttl=ttl, arrow=arrow)
        self.take(ids, self.version, ttl)

    def do_old_write(self, process):
        known = [row for row in self.rows if not self.expiries[row] and self.rows[row] > 1]
        self.say("write of what is older", len(known[:20]))
        if known:
            process.do("write", ids=known[:20], version=0, ttl=False, arrow=False)

    def do_write_together(self, _):
        """All processes write at once, each its own rows."""
        self.say("write together")
        ids = self.some_ids()
        parts = [ids[at :: len(self.processes)] for at in range(len(self.processes))]
        versions = []
        for process, part in zip(self.processes, parts, strict=True):
            self.version += 1
            versions.append(self.version)
            process.tell("write", ids=part, version=self.version, ttl=False, arrow=True)
        for process, part, version in zip(self.processes, parts, versions, strict=True):
            process.answer()
            self.take(part, version, ttl=False)

    def do_delete(self, process):
        ids = self.some_ids()[:200]
        self.say("delete", len(ids))
        process.do("delete", ids=ids)
        self.lose(ids)

    def lose(self, ids):
        for row in ids:
            for known in (self.rows, self.expiries, self.extras):
                known.pop(row, None)

    def do_optimize(self, process):
        self.say("optimize")
        process.do("optimize")

    def do_close(self, process):
        self.say("close")
        process.do("close")

    def do_fork(self, process):
        self.say("fork")
        process.do("fork")

    def do_kill(self, process):
        """Kill it amid a write: of which all is there, or nothing."""
        self.version += 1
        ids = self.some_ids()
        process.tell("write", ids=ids, version=self.version, ttl=False, arrow=True)
        time.sleep(self.chance.random() * 0.05)
        process.kill()
        at = self.processes.index(process)
        self.processes[at] = self.start(process.builds)
        self.processes[at].do("know", extra=self.extra)
        found = self.processes[at].do("read", ids=ids)["title"]
        written = [name == title(row, self.version) for row, name in zip(ids, found, strict=True)]
        self.say("killed amid a write of", len(ids), "all" if all(written) else "none")
        assert all(written) or not any(written), "a batch is there in part"
        if all(written):
            self.take(ids, self.version, ttl=False)

    def do_apply(self, process):
        self.extra = not self.extra
        drop = self.chance.random() < 0.2
        self.say(
            "apply", "with" if self.extra else "without", "extra", "after a drop" if drop else ""
        )
        process.do("apply", extra=self.extra, drop=drop)
        for other in self.processes:
            other.do("know", extra=self.extra)
        self.extras = {}
        if drop:
            self.rows, self.expiries = {}, {}

    def do_backup(self, process):
        target = self.folder / f"backup{self.version}"
        self.say("backup")
        process.do("backup", target=str(target))
        state = (dict(self.rows), dict(self.expiries), dict(self.extras), self.extra)
        self.backups.append((target, state))

    def do_restore(self, process):
        if not self.backups:
            return
        target, state = self.chance.choice(self.backups)
        self.say("restore", target.name)
        process.do("restore", source=str(target))
        self.rows, self.expiries, self.extras = (dict(known) for known in state[:3])
        self.extra = state[3]
        for other in self.processes:
            other.do("know", extra=self.extra)

    def do_verify(self, process):
        self.say("verify")
        problems = process.do("verify")
        assert not problems, problems

    # --- looking

    def check(self):
        """Every process answers as the dict does."""
        soon = [at for at in self.expiries.values() if at and -0.5 < at - time.time() < 5]
        if soon:
            time.sleep(max(0, max(soon) + 0.5 - time.time()))
        self.lose([row for row, at in list(self.expiries.items()) if at and at < time.time()])
        process = self.any_process()
        self.check_reads(process)
        self.check_searches(process)

    def check_reads(self, process):
        ids = list(range(ROWS + 100))
        found = process.do("read", ids=ids)
        for row in ids:
            version = self.rows.get(row)
            wanted = (
                (None, None) if version is None else (title(row, version), number(row, version))
            )
            seen = (found["title"][row], found["number"][row])
            assert seen == wanted, f"row {row} is {seen}, not {wanted}"
            if self.extra:
                assert found["extra"][row] == self.extras.get(row), f"row {row}: extra"
        assert process.do("count") == len(self.rows)

    def check_searches(self, process):
        if not self.rows:
            return
        ids = np.array(sorted(self.rows))
        query = (int(self.chance.random() * 10**6) + 10**6, 1)
        known = np.stack([self.vector(row) for row in ids.tolist()])
        distances = np.linalg.norm(known - vector(*query), axis=1)
        least = self.chance.randrange(1000)
        passing = np.array([(number(row, self.rows[row]) or -1) >= least for row in ids.tolist()])
        for filters, allowed in ((None, np.ones(len(ids), bool)), (_at_least(least), passing)):
            order = [at for at in np.argsort(distances, kind="stable") if allowed[at]]
            nearest = ids[order[:10]].tolist()
            exact = process.do("search", query=query, top_k=10, exact=True, filters=filters)
            assert exact["id"] == nearest, f"exact: {exact['id']}, not {nearest}"
            best = process.do("search", query=query, top_k=10, filters=filters)
            assert len(best["id"]) == len(nearest)
            assert len(set(best["id"]) & set(nearest)) >= 0.7 * len(nearest), "recall"
            for row, distance in zip(best["id"], best["distance"], strict=True):
                assert abs(distance - distances[np.searchsorted(ids, row)]) < 1e-3, f"row {row}"
        word = f"v{self.rows[self.chance.choice(sorted(self.rows))]}"
        found = process.do("search", query=None, text=word, top_k=10_000)["id"]
        wanted = [row for row in self.rows if f"v{self.rows[row]}" == word]
        assert sorted(found) == sorted(wanted), f"text {word}"

    def vector(self, row):
        at = (row, self.rows[row])
        if at not in self._known:
            self._known[at] = vector(*at)
        return self._known[at]

    def end(self):
        for process in self.processes:
            process.kill()


def _at_least(number):
    return {"type": "gte", "key": "number", "value": number}


def run(seed, steps, tell=print, kind=Run):
    """Run a seed for so many steps; an error names the seed."""
    with tempfile.TemporaryDirectory() as folder:
        going = kind(folder, seed, tell)
        try:
            for _ in range(steps):
                going.step()
        except BaseException as error:
            if hasattr(error, "add_note"):
                error.add_note(f"replay: python {__file__} {seed} {steps}")
            raise
        finally:
            going.end()


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 50)
