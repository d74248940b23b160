"""A store, driven at random, behaves like a dict."""

import math
import pickle
import shutil
import tempfile
from pathlib import Path

from conftest import at, integer, key, make_harness, make_view, text, vector
from feast import Field
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Array, Float32, Int64, String
from feast_vector import _core
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

IDS = st.integers(0, 5)
TIMES = st.integers(0, 6)
COORDINATES = st.tuples(st.integers(-3, 3), st.integers(-3, 3))
DTYPES = {"title": String, "number": Int64, "extra": Int64, "embedding": Array(Float32)}


class StoreModel(RuleBasedStateMachine):
    """Writes, reads, searches, schema changes and reopening, from two store objects on one file."""

    @initialize()
    def open(self):
        self.folder = Path(tempfile.mkdtemp())
        self.harnesses = [
            make_harness(self.folder, durability="off", text_search_enabled=True) for _ in range(2)
        ]
        self.features = ["title", "number", "embedding"]
        self.rows = {}
        self.apply()

    def view(self):
        view = make_view(
            fields={name: DTYPES[name] for name in self.features if name != "embedding"}
        )
        if "embedding" in self.features:
            view.features.append(
                Field(
                    name="embedding",
                    dtype=Array(Float32),
                    vector_index=True,
                    vector_search_metric="L2",
                )
            )
        return view

    def apply(self):
        self.harnesses[0].update([self.view()])
        for _, row in self.rows.values():
            for name in set(row) - set(self.features):
                del row[name]

    @rule(
        which=st.integers(0, 1),
        batch=st.lists(
            st.tuples(
                IDS,
                TIMES,
                st.fixed_dictionaries(
                    {},
                    optional={
                        "title": st.sampled_from([text("a"), text("b"), Value(), integer(7)]),
                        "number": st.sampled_from([integer(1), integer(2), Value(null_val=0)]),
                        "extra": st.just(integer(9)),
                        "embedding": COORDINATES.map(lambda point: vector(*point)),
                    },
                ),
            ),
            max_size=4,
        ),
    )
    def write(self, which, batch):
        batch = [
            (number, time, {name: row[name] for name in row if name in self.features})
            for number, time, row in batch
        ]
        self.harnesses[which].write(
            self.view(), *((key(id=number), row, at(time)) for number, time, row in batch)
        )
        for number, time, row in batch:
            stored_time, stored = self.rows.get(number, (time, {}))
            if time >= stored_time:
                self.rows[number] = (time, {**stored, **row})

    @rule(names=st.sets(st.sampled_from(["number", "extra", "embedding"])))
    def change_the_schema(self, names):
        self.features = ["title", *sorted(names)]
        self.apply()

    @rule()
    def delete_the_view(self):
        self.harnesses[1].update(delete=[self.view()])
        self.rows = {}
        self.apply()

    @rule(which=st.integers(0, 1))
    def reopen(self, which):
        harness = self.harnesses[which]
        for engine in harness.store._engines.values():
            engine.close()
        harness.store = pickle.loads(pickle.dumps(harness.store))

    @rule(which=st.integers(0, 1), query=COORDINATES, top_k=st.integers(1, 8))
    def search(self, which, query, top_k):
        if "embedding" not in self.features:
            return
        harness = self.harnesses[which]
        found = harness.store.retrieve_online_documents_v2(
            harness.config, self.view(), ["title", "embedding"], list(query), top_k
        )
        points = {
            number: tuple(row["embedding"].float_list_val.val)
            for number, (_, row) in self.rows.items()
            if "embedding" in row
        }
        distances = sorted(math.dist(query, point) for point in points.values())[:top_k]
        assert [round(row["distance"].float_val, 4) for _, _, row in found] == [
            round(distance, 4) for distance in distances
        ]
        for time, entity, row in found:
            number = entity.entity_values[0].int64_val
            stored_time, stored = self.rows[number]
            del row["distance"]
            assert row == {name: stored[name] for name in ("title", "embedding") if name in stored}
            assert time == at(stored_time)

    @rule(which=st.integers(0, 1), numbers=st.lists(IDS, max_size=3))
    def delete_rows(self, which, numbers):
        harness = self.harnesses[which]
        keys = [key(id=number).SerializeToString() for number in numbers]
        deleted = harness.store.engine(harness.config).delete(_core.View("shop", "items"), keys)
        assert deleted == len(set(numbers) & set(self.rows))
        for number in numbers:
            self.rows.pop(number, None)

    @rule(which=st.integers(0, 1), word=st.sampled_from(["a", "b"]))
    def search_text(self, which, word):
        expected = {
            number for number, (_, row) in self.rows.items() if row.get("title") == text(word)
        }
        assert set(self.harnesses[which].find_ids(self.view(), text=word)) == expected

    @rule(which=st.integers(0, 1), query=COORDINATES, limit=st.integers(0, 3))
    def search_filtered(self, which, query, limit):
        if not {"embedding", "number"} <= set(self.features):
            return
        wanted = {"type": "lt", "key": "number", "value": limit}
        found = self.harnesses[which].find_ids(self.view(), list(query), filters=wanted)
        assert sorted(found) == sorted(
            number
            for number, (_, row) in self.rows.items()
            if "embedding" in row
            and row.get("number", Value()).WhichOneof("val") == "int64_val"
            and row["number"].int64_val < limit
        )

    @invariant()
    def reads_agree(self):
        expected = [
            (at(self.rows[number][0]), self.rows[number][1])
            if number in self.rows
            else (None, None)
            for number in range(6)
        ]
        for harness in self.harnesses:
            assert harness.read(self.view(), *(key(id=number) for number in range(6))) == expected

    def teardown(self):
        shutil.rmtree(self.folder, ignore_errors=True)


StoreModel.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestStoreModel = StoreModel.TestCase
