"""The engines that `peers.py` compares: the usual good settings of each, from quick to thorough."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from peers import Data

# LanceDB warns of its future at every query.
os.environ.setdefault("LANCE_LOG", "error")
os.environ.setdefault("RUST_LOG", "error")

TOP_K = 10
THREADS = os.cpu_count() or 1

Ids = Any
Call = Callable[[np.ndarray], Ids]


class Peer:
    """An engine. `efforts` are settings from quick to thorough."""

    name = ""
    package = ""
    efforts: tuple[Any, ...] = (None,)
    queries = 1000
    filters = False
    graph = False

    def __init__(self, data: Data, folder: Path) -> None:
        self.data, self.folder = data, folder

    def build(self) -> None:
        """Build, with all cores."""

    def bytes(self) -> int:
        """On disk."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    def search(self, effort: Any) -> Call:
        """A function from a query to ids, on one thread."""
        raise NotImplementedError

    def batch(self, effort: Any) -> Call | None:
        """A function from many queries to their ids, on all cores."""
        return None

    def filtered(self, effort: Any, percent: int) -> Call:
        """The same as `search`, of rows whose number is below `percent`."""
        raise NotImplementedError


class Ours(Peer):
    """feast-vector, by the call that its native API makes."""

    name = "feast-vector"
    package = "feast-vector"
    efforts = ("0.8", "0.9", "0.95", "0.98", "0.99", "0.995", "0.999", "flat")
    filters = True

    def build(self) -> None:
        import feast_vector
        import pandas as pd
        from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
        from feast.types import Array, Float32, Int64

        (self.folder / "feature_store.yaml").write_text(
            "project: bench\nprovider: local\nregistry: registry.db\n"
            "entity_key_serialization_version: 3\nonline_store:\n  type: vector\n"
            "  path: online.db\n  index_builds: on_demand\n"
        )
        self.store = FeatureStore(self.folder)
        item = Entity(name="item", join_keys=["id"], value_type=ValueType.INT64)
        now = pd.Timestamp.now(tz="UTC")
        source = self.folder / "items.parquet"
        vector = Field(
            name="v",
            dtype=Array(Float32),
            vector_index=True,
            vector_length=self.data.base.shape[1],
            vector_search_metric=self.data.metric,
        )
        view = FeatureView(
            name="items",
            entities=[item],
            schema=[Field(name="percent", dtype=Int64), vector],
            source=FileSource(path=str(source), timestamp_field="event_timestamp"),
        )

        def frame(start: int, end: int) -> pd.DataFrame:
            return pd.DataFrame(
                {
                    "id": range(start, end),
                    "percent": self.data.percent[start:end],
                    "v": list(self.data.base[start:end]),
                    "event_timestamp": now,
                }
            )

        frame(0, 1).to_parquet(source)
        self.store.apply([item, view])
        started = time.perf_counter()
        for start in range(0, len(self.data.base), 20_000):
            end = min(start + 20_000, len(self.data.base))
            self.store.write_to_online_store("items", frame(start, end))
        source.unlink()
        print(f"  (rows written through Feast in {time.perf_counter() - started:.1f} s)")
        self.view = feast_vector.open_view(self.store, "items")
        self.built: str | None = None
        self.report: dict[str, Any] = {}
        self.use("0.99")

    def use(self, effort: str) -> None:
        if self.built != effort:
            from feast_vector import _core

            kind, recall = ("flat", 0.99) if effort == "flat" else ("auto", float(effort))
            declared = (
                [("v", "FLOAT_LIST", self.data.base.shape[1])],
                [("v", self.data.metric, kind, recall)],
            )
            self.declaration = _core.View(
                "bench",
                "items",
                join_keys=[("id", "INT64")],
                features=[("percent", "INT64", None), *declared[0]],
                vector_indexes=declared[1],
            )
            self.report = json.loads(self.engine(1).optimize(self.declaration))["v"]
            self.built = effort

    def engine(self, threads: int) -> Any:
        config = self.store.config.model_copy(deep=True)
        config.online_store.search_threads = threads
        return self.view._online_store.engine(config)  # noqa: SLF001

    def _call(self, effort: str, threads: int, passing: Any = None) -> Call:
        self.use(effort)
        engine, declaration, metric = self.engine(threads), self.declaration, self.data.metric

        def call(query: np.ndarray) -> Ids:
            batch, _ = engine.search(
                declaration,
                top_k=TOP_K,
                feature="v",
                queries=np.atleast_2d(query).astype(np.float64),
                metric=metric,
                features=[],
                filter=passing,
                typed=True,
            )
            return batch.column(0).to_numpy()

        return call

    def search(self, effort: str) -> Call:
        return self._call(effort, 1)

    def batch(self, effort: str) -> Call:
        call = self._call(effort, THREADS)
        return lambda queries: call(queries).reshape(len(queries), -1)

    def filtered(self, effort: str, percent: int) -> Call:
        from feast.filter_models import ComparisonFilter
        from feast_vector.filters import conditions

        below = ComparisonFilter(type="lt", key="percent", value=percent)
        return self._call(effort, 1, conditions(below))

    def bytes(self) -> int:
        return sum(file.stat().st_size for file in (self.folder / "online.db.index").iterdir())


class Hnswlib(Peer):
    name, package, graph, filters = "hnswlib", "hnswlib", True, True
    efforts = (10, 20, 40, 60, 80, 120, 180, 260, 400, 600, 900)

    def build(self) -> None:
        import hnswlib

        space = {"cosine": "cosine", "L2": "l2"}[self.data.metric]
        self.index = hnswlib.Index(space=space, dim=self.data.base.shape[1])
        self.index.init_index(max_elements=len(self.data.base), ef_construction=200, M=16)
        self.index.add_items(self.data.base, num_threads=THREADS)
        self.index.save_index(str(self.folder / "index"))

    def search(self, effort: int) -> Call:
        self.index.set_ef(effort)
        return lambda query: self.index.knn_query(query, TOP_K, num_threads=1)[0][0]

    def batch(self, effort: int) -> Call:
        self.index.set_ef(effort)
        return lambda queries: self.index.knn_query(queries, TOP_K, num_threads=THREADS)[0]

    def filtered(self, effort: int, percent: int) -> Call:
        self.index.set_ef(effort)
        passes = (self.data.percent < percent).tolist().__getitem__
        return lambda query: self.index.knn_query(query, TOP_K, num_threads=1, filter=passes)[0][0]


class Usearch(Peer):
    name, package, graph = "usearch", "usearch", True
    efforts = (16, 32, 64, 128, 256, 512, 1024)

    def build(self) -> None:
        from usearch.index import Index

        metric = {"cosine": "cos", "L2": "l2sq"}[self.data.metric]
        self.index = Index(
            ndim=self.data.base.shape[1],
            metric=metric,
            dtype="f32",
            connectivity=16,
            expansion_add=200,
        )
        self.index.add(np.arange(len(self.data.base)), self.data.base, threads=THREADS)
        self.index.save(str(self.folder / "index"))

    def search(self, effort: int) -> Call:
        self.index.expansion_search = effort
        return lambda query: self.index.search(query, TOP_K, threads=1).keys

    def batch(self, effort: int) -> Call:
        self.index.expansion_search = effort
        return lambda queries: self.index.search(queries, TOP_K, threads=THREADS).keys


class Vsag(Peer):
    name, package, graph = "vsag HGraph sq8", "pyvsag", True
    efforts = (10, 20, 40, 60, 80, 120, 180, 260, 400, 600)

    def build(self) -> None:
        import pyvsag

        rows, dim = self.data.base.shape
        parameters = {
            "dtype": "float32",
            "metric_type": {"cosine": "cosine", "L2": "l2"}[self.data.metric],
            "dim": dim,
            "index_param": {
                "base_quantization_type": "sq8",
                "max_degree": 32,
                "ef_construction": 300,
                "alpha": 1.2,
                "use_reorder": True,
                "precise_quantization_type": "fp32",
                "build_thread_count": THREADS,
            },
        }
        pyvsag.set_logger_off()
        self.index = pyvsag.Index("hgraph", json.dumps(parameters))
        self.index.build(
            vectors=self.data.base.reshape(-1), ids=np.arange(rows), num_elements=rows, dim=dim
        )
        self.index.save(str(self.folder / "index"))

    def search(self, effort: int) -> Call:
        parameters = json.dumps({"hgraph": {"ef_search": effort}})
        return lambda query: self.index.knn_search(vector=query, k=TOP_K, parameters=parameters)[0]


class Zvec(Peer):
    name, package, graph, filters = "zvec HNSW int8", "zvec", True, True
    efforts = (10, 20, 40, 60, 80, 120, 180, 260, 400, 600)
    _started = False

    def build(self) -> None:
        import zvec

        if not Zvec._started:
            logs = tempfile.mkdtemp()
            zvec.init(
                log_dir=logs,
                log_level=zvec.LogLevel.ERROR,
                query_threads=1,
                optimize_threads=THREADS,
            )
            Zvec._started = True
        metric = {"cosine": zvec.MetricType.COSINE, "L2": zvec.MetricType.L2}[self.data.metric]
        index = zvec.HnswIndexParam(metric, 32, 300, zvec.QuantizeType.INT8)
        vector = zvec.VectorSchema(
            "v", zvec.DataType.VECTOR_FP32, self.data.base.shape[1], index_param=index
        )
        number = zvec.FieldSchema(
            "percent", zvec.DataType.INT32, index_param=zvec.InvertIndexParam()
        )
        schema = zvec.CollectionSchema("bench", number, vector)
        self.collection = zvec.create_and_open(str(self.folder / "collection"), schema)
        for start in range(0, len(self.data.base), 1000):
            end = min(start + 1000, len(self.data.base))
            self.collection.insert(
                [
                    zvec.Doc(
                        str(i),
                        vectors={"v": self.data.base[i].tolist()},
                        fields={"percent": int(self.data.percent[i])},
                    )
                    for i in range(start, end)
                ]
            )
        started = time.perf_counter()
        self.collection.optimize(zvec.OptimizeOption(THREADS))
        print(f"  (of it the index {time.perf_counter() - started:.1f} s)")

    def search(self, effort: int) -> Call:
        return self._call(effort, None)

    def filtered(self, effort: int, percent: int) -> Call:
        return self._call(effort, f"percent < {percent}")

    def _call(self, effort: int, condition: str | None) -> Call:
        import zvec

        parameters = zvec.HnswQueryParam(ef=effort, is_using_refiner=True)

        def call(query: np.ndarray) -> Ids:
            asked = zvec.Query("v", vector=query, param=parameters)
            found = self.collection.query(
                asked, topk=TOP_K, filter=condition, output_fields=["percent"]
            )
            return [int(doc.id) for doc in found]

        return call


class Faiss(Peer):
    """One of Faiss's indexes."""

    package, filters = "faiss-cpu", True
    factory = ""
    refine = False

    def build(self) -> None:
        import faiss

        faiss.omp_set_num_threads(THREADS)
        rows, dim = self.data.base.shape
        lists = int(rows**0.5)
        metric = {"cosine": faiss.METRIC_INNER_PRODUCT, "L2": faiss.METRIC_L2}[self.data.metric]
        self.index = faiss.index_factory(dim, self.factory.format(lists=lists, pq=dim // 2), metric)
        self.index.train(self.data.base)
        self.index.add(self.data.base)
        faiss.write_index(self.index, str(self.folder / "index"))

    def parameters(self, effort: Any, selector: Any = None) -> Any:
        return None

    def _search(self, queries: np.ndarray, parameters: Any, threads: int) -> Ids:
        import faiss

        faiss.omp_set_num_threads(threads)
        return self.index.search(queries, TOP_K, params=parameters)[1]

    def search(self, effort: Any) -> Call:
        parameters = self.parameters(effort)
        return lambda query: self._search(query[np.newaxis], parameters, 1)[0]

    def batch(self, effort: Any) -> Call:
        parameters = self.parameters(effort)
        return lambda queries: self._search(queries, parameters, THREADS)

    def filtered(self, effort: Any, percent: int) -> Call:
        import faiss

        bits = np.packbits(self.data.percent < percent, bitorder="little")
        parameters = self.parameters(effort, faiss.IDSelectorBitmap(bits))
        return lambda query: self._search(query[np.newaxis], parameters, 1)[0]


class FaissFlat(Faiss):
    name, factory, queries = "faiss Flat", "Flat", 100

    def parameters(self, effort: Any, selector: Any = None) -> Any:
        import faiss

        return faiss.SearchParameters(sel=selector) if selector else None


class FaissHnsw(Faiss):
    name, factory, graph = "faiss HNSW", "HNSW32", True
    efforts = (16, 32, 64, 96, 128, 192, 256, 400, 600)

    def parameters(self, effort: int, selector: Any = None) -> Any:
        import faiss

        keywords = {"sel": selector} if selector else {}
        return faiss.SearchParametersHNSW(efSearch=effort, **keywords)


class FaissLists(Faiss):
    """An index in lists, whose best candidates are compared exactly."""

    efforts = tuple((n, r) for n in (4, 8, 16, 32, 64, 128, 256) for r in (5, 15, 40))

    def parameters(self, effort: tuple[int, int], selector: Any = None) -> Any:
        import faiss

        keywords = {"sel": selector} if selector else {}
        inner = self.inner()(nprobe=effort[0], **keywords)
        return faiss.IndexRefineSearchParameters(k_factor=effort[1], base_index_params=inner)

    def inner(self) -> Any:
        import faiss

        return faiss.SearchParametersIVF


class FaissPq(FaissLists):
    name, factory = "faiss IVF-PQ-FastScan", "IVF{lists},PQ{pq}x4fs,RFlat"


class FaissRabitq(FaissLists):
    name, factory = "faiss IVF-RaBitQ-FastScan", "IVF{lists},RaBitQfs,RFlat"


class SqliteVec(Peer):
    name, package, queries, filters = "sqlite-vec", "sqlite-vec", 20, True

    def build(self) -> None:
        # Python's own may be built without extensions.
        import pysqlite3 as sqlite3
        import sqlite_vec

        self.connection = sqlite3.connect(self.folder / "vec.db")
        self.connection.enable_load_extension(True)  # noqa: FBT003
        sqlite_vec.load(self.connection)
        metric = {"cosine": "cosine", "L2": "l2"}[self.data.metric]
        self.connection.execute(
            "CREATE VIRTUAL TABLE vec USING vec0(percent INTEGER, "
            f"v FLOAT[{self.data.base.shape[1]}] distance_metric={metric})"
        )
        rows = zip(
            range(len(self.data.base)), self.data.percent.tolist(), self.data.base, strict=True
        )
        self.connection.executemany("INSERT INTO vec(rowid, percent, v) VALUES (?, ?, ?)", rows)
        self.connection.commit()

    def search(self, effort: None) -> Call:
        return self.filtered(effort, 100)

    def filtered(self, effort: None, percent: int) -> Call:
        where = "" if percent == 100 else f"AND percent < {percent}"  # noqa: PLR2004
        sql = f"SELECT rowid FROM vec WHERE v MATCH ? AND k = {TOP_K} {where}"  # noqa: S608
        return lambda query: [row[0] for row in self.connection.execute(sql, [query])]


class LanceDb(Peer):
    name, package, queries, filters = "LanceDB IVF-HNSW-SQ", "lancedb", 100, True
    efforts = tuple((n, e) for n in (4, 16) for e in (50, 200))

    def build(self) -> None:
        import lancedb
        import pyarrow as pa

        rows, dim = self.data.base.shape
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(self.data.base.reshape(-1)), dim)
        table = pa.table(
            {"id": np.arange(rows), "percent": self.data.percent.astype("int32"), "v": vectors}
        )
        self.table = lancedb.connect(str(self.folder)).create_table("vectors", table)
        metric = {"cosine": "cosine", "L2": "l2"}[self.data.metric]
        self.table.create_index(
            metric=metric, vector_column_name="v", index_type="IVF_HNSW_SQ", num_partitions=16
        )
        self.table.create_scalar_index("percent")

    def search(self, effort: tuple[int, int]) -> Call:
        return self.filtered(effort, 100)

    def filtered(self, effort: tuple[int, int], percent: int) -> Call:
        probes, ef = effort

        def call(query: np.ndarray) -> Ids:
            asked = self.table.search(query, vector_column_name="v").limit(TOP_K)
            asked = asked.nprobes(probes).ef(ef).refine_factor(4).select(["id"])
            if percent < 100:  # noqa: PLR2004
                asked = asked.where(f"percent < {percent}", prefilter=True)
            return asked.to_arrow()["id"].to_numpy()

        return call


PEERS: tuple[type[Peer], ...] = (
    Ours,
    Hnswlib,
    Usearch,
    Vsag,
    Zvec,
    FaissFlat,
    FaissHnsw,
    FaissPq,
    FaissRabitq,
    SqliteVec,
    LanceDb,
)
