"""Pages: each row once, in one order, whatever their size."""

import random

import numpy as np
import pyarrow as pa
import pytest
from conftest import at, integer, key, make_harness, text, vector, vector_view
from feast import Field
from feast.types import Int64
from feast_vector import views
from feast_vector.filters import conditions

LENGTH = 16
WORDS = ["red", "blue", "lamp", "chair", "vase", "old"]


class Pages:
    """A view of many rows, some without a vector, and one query of it."""

    def __init__(self, folder, rows, index):
        self.harness = make_harness(
            folder, text_search_enabled=True, index_builds="on_demand", durability="off"
        )
        self.view = vector_view(metric="cosine", length=LENGTH)
        self.view.features.append(Field(name="number", dtype=Int64))
        self.view.features[1].tags = {"feast_vector.index_type": index}
        draw, vectors = random.Random(7), np.random.default_rng(7)
        points = vectors.normal(size=(rows, LENGTH))
        points[: rows // 2] += 2 * points[0]
        self.query = points[:1] + 0.1
        for start in range(0, rows, 2000):
            self.harness.write(
                self.view,
                *(
                    (
                        key(id=i),
                        {
                            "title": text(" ".join(draw.choices(WORDS, k=3))),
                            "number": integer(i % 5),
                            **({} if i % 50 == 7 else {"embedding": vector(*points[i])}),
                        },
                        at(0),
                    )
                    for i in range(start, min(start + 2000, rows))
                ),
            )
        self.engine = self.harness.store.engine(self.harness.config)
        self.declaration = views.declaration(self.harness.config, self.view)
        if index != "auto":
            self.engine.optimize(self.declaration)

    def page(self, by, top_k, offset=0, filters=None, **options):
        if "vector" in by:
            options.update(feature="embedding", queries=self.query, metric="cosine")
        if "text" in by:
            options["texts"] = ["red lamp"]
        rows, _ = self.engine.search(
            self.declaration,
            top_k=top_k,
            offset=offset,
            filter=filters and conditions(filters),
            features=[],
            typed=True,
            **options,
        )
        return rows

    def pages(self, by, sizes, filters=None):
        found, offset = [], 0
        for size in sizes:
            rows = self.page(by, size, offset, filters)
            found.extend(rows.column("id").to_pylist())
            offset += size
            if rows.num_rows < size:
                return found
        raise AssertionError("too few pages")


@pytest.fixture(scope="module", params=["auto", "flat", "ivf"])
def pages(request, tmp_path_factory):
    return Pages(tmp_path_factory.mktemp(request.param), 12_000, request.param)


@pytest.mark.parametrize("by", ["vector", "text", "vector and text"])
@pytest.mark.parametrize("filters", [None, {"type": "in", "key": "number", "value": [1, 3]}])
def test_each_row_is_on_one_page_in_one_order(pages, by, filters):
    everything = pages.page(by, 10**6, 0, filters).column("id").to_pylist()
    assert len(everything) == len(set(everything))
    wanted = [i for i in range(12_000) if filters is None or i % 5 in (1, 3)]
    if "vector" in by:
        wanted = [i for i in wanted if i % 50 != 7 or ("text" in by and i in set(everything))]
        assert set(wanted) == set(everything)
    draw = random.Random(1)
    for sizes in (
        [100] * 50 + [10_000],
        [7] * 30 + [900] * 20,
        [1, 9, 1, 90, 2, 897, 3, 5000, 9999],
    ):
        assert pages.pages(by, [*sizes, 10_000], filters) == everything
    for _ in range(10):
        sizes = [draw.choice([1, 3, 10, 60, 400, 2500]) for _ in range(200)]
        assert pages.pages(by, [*sizes, 20_000], filters) == everything


def test_the_best_do_not_depend_on_how_many_are_asked_for(pages):
    for by in ("vector", "text", "vector and text"):
        all_rows = pages.page(by, 3000)
        for top_k in (1, 10, 11, 100, 999, 1001):
            rows = pages.page(by, top_k)
            assert rows.equals(all_rows.slice(0, top_k)), (by, top_k)


def test_scores_and_distances_are_in_order(pages):
    rows = pages.page("vector and text", 12_000)
    scores = rows.column("score").to_pylist()
    assert scores == sorted(scores, reverse=True)
    rest = [d for d, s in zip(rows.column("distance").to_pylist(), scores, strict=True) if s == 0]
    with_vectors = [d for d in rest if d is not None]
    assert with_vectors == sorted(with_vectors)
    assert rest[: len(with_vectors)] == with_vectors
    near = pages.page("vector and text", 12_000, max_distance=0.5)
    kept = {
        i
        for i, d in zip(
            rows.column("id").to_pylist(), rows.column("distance").to_pylist(), strict=True
        )
        if d is not None and d <= 0.5
    }
    assert set(near.column("id").to_pylist()) == kept


def test_great_numbers_are_no_more_than_all_rows(pages):
    for top_k, offset in ((2**64 - 1, 2**64 - 1), (2**63, 0), (10**10, 11_990)):
        for by in ("vector", "text", "vector and text"):
            rows = pages.page(by, top_k, offset)
            assert isinstance(rows, pa.RecordBatch)
            assert rows.num_rows <= 12_000 - min(offset, 12_000)
