"""Vector search against other engines: queries a second by recall, builds, sizes, filters.

`make bench-peers` installs the peers and runs this for the sets of vectors that it finds in
`PEERS_DATA`: `minilm_100k.f16.npy` with `minilm_queries_1k.f16.npy`, `sift_500k.u8.npy` with
`sift_queries.u8.npy`; fashion-mnist from Debian's package `dataset-fashion-mnist`; or, if there are
none, one that it makes. Every engine answers the same queries in the same process, one after the
other, with one thread where it does not say otherwise; ours first and again at the end.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import itertools
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from engines import PEERS, THREADS, TOP_K, Call, FaissLists, Ids, Ours, Peer

ROUNDS = 3
PERCENTS = (1, 10, 50)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")


class Data:
    """Vectors, queries, a number from 0 to 99 for each vector, and the true answers."""

    def __init__(self, name: str, metric: str, base: np.ndarray, queries: np.ndarray) -> None:
        """Find the true answers."""
        self.name, self.metric = name, metric
        self.base = np.ascontiguousarray(base, dtype=np.float32)
        self.queries = np.ascontiguousarray(queries, dtype=np.float32)
        if metric == "cosine":
            self.base /= np.linalg.norm(self.base, axis=1, keepdims=True)
            self.queries /= np.linalg.norm(self.queries, axis=1, keepdims=True)
        self.percent = np.random.default_rng(7).permutation(len(base)) % 100
        self.truth = self._truth(np.arange(len(base)))
        self.filtered = {p: self._truth(np.flatnonzero(self.percent < p)) for p in PERCENTS}

    def _truth(self, ids: np.ndarray) -> np.ndarray:
        rows = self.base[ids]
        squares = (rows * rows).sum(1)
        found = []
        for block in np.array_split(self.queries, max(1, len(self.queries) // 100)):
            distances = squares - 2 * block @ rows.T
            best = np.argpartition(distances, TOP_K, axis=1)[:, :TOP_K]
            found.append(ids[best])
        return np.concatenate(found)

    def recall(self, answers: list[Ids], truth: np.ndarray) -> float:
        """The share of the true nearest that was found."""
        hits = sum(
            len(set(map(int, answer)) & set(true.tolist()))
            for answer, true in zip(answers, truth, strict=False)
        )
        return hits / (len(answers) * TOP_K)


def sets(folder: Path) -> Iterator[Data]:
    """The sets that are there."""
    minilm, sift = folder / "minilm_100k.f16.npy", folder / "sift_500k.u8.npy"
    found = False
    if minilm.exists():
        found = True
        queries = np.load(folder / "minilm_queries_1k.f16.npy")
        yield Data("MiniLM 100k x 384", "cosine", np.load(minilm), queries)
    if DEBIAN.exists():
        found = True
        images = []
        for part in ("train", "t10k"):
            with gzip.open(DEBIAN / f"{part}-images-idx3-ubyte.gz") as file:
                images.append(np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784))
        yield Data("fashion-mnist 60k x 784", "L2", images[0], images[1][:1000])
    if sift.exists():
        found = True
        queries = np.load(folder / "sift_queries.u8.npy")[:1000]
        yield Data("SIFT 500k x 128", "L2", np.load(sift), queries)
    if not found:
        rng = np.random.default_rng(0)
        centres = rng.standard_normal((1000, 256))
        rows = centres[rng.integers(0, 1000, 101_000)] + rng.standard_normal((101_000, 256))
        yield Data("clustered 100k x 256", "L2", rows[:-1000], rows[-1000:])


def speed(call: Call, queries: np.ndarray) -> tuple[float, list[Ids]]:
    """Queries a second, the median of several rounds, and the answers."""
    answers = [call(query) for query in queries]
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for query in queries:
            call(query)
        seconds.append(time.perf_counter() - started)
    return len(queries) / statistics.median(seconds), answers


def measure(peer: Peer) -> dict[str, Any]:
    """All that is measured of one engine."""
    data = peer.data
    started = time.perf_counter()
    peer.build()
    result: dict[str, Any] = {
        "name": peer.name,
        "version": importlib.metadata.version(peer.package),
        "graph": peer.graph,
        "build": time.perf_counter() - started,
        "bytes": peer.bytes(),
        "points": [],
        "batch": None,
        "filtered": {},
    }
    queries = data.queries[: peer.queries]
    for effort in peer.efforts:
        rate, answers = speed(peer.search(effort), queries)
        recall = data.recall(answers, data.truth)
        result["points"].append({"effort": effort, "qps": rate, "recall": recall})
        if isinstance(peer, Ours) and effort == "0.99":
            result["build"] = peer.report["seconds"]
            result["bytes"] = peer.bytes()
        if recall > 0.9995:  # noqa: PLR2004
            break
    enough = [point for point in result["points"] if point["recall"] >= 0.985]  # noqa: PLR2004
    chosen = min(enough, key=lambda point: point["recall"], default=result["points"][-1])
    batch = peer.batch(chosen["effort"])
    if batch is not None:
        batch(queries)
        seconds = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            batch(queries)
            seconds.append(time.perf_counter() - started)
        result["batch"] = {
            "effort": chosen["effort"],
            "qps": len(queries) / statistics.median(seconds),
            "alone": chosen["qps"],
        }
    if peer.filters:
        for percent in PERCENTS:
            result["filtered"][percent] = filtered(peer, percent)
    return result


def filtered(peer: Peer, percent: int) -> dict[str, float] | None:
    """The fastest setting that finds 98 of 100 of the rows that pass."""
    data = peer.data
    queries = data.queries[: min(peer.queries, 200)]
    best = None
    for effort in peer.efforts:
        call = peer.filtered(effort, percent)
        answers = [call(query) for query in queries]
        recall = data.recall(answers, data.filtered[percent])
        if recall >= 0.98:  # noqa: PLR2004
            rate, _ = speed(call, queries)
            if best is None or rate > best["qps"]:
                best = {"qps": rate, "recall": recall}
            if not isinstance(peer, FaissLists):
                break
    return best


def at_recall(result: dict[str, Any], recall: float) -> float | None:
    """Queries a second at that recall, on a line between the settings around it."""
    points = sorted(result["points"], key=lambda point: point["recall"])
    enough = [point for point in points if point["recall"] >= recall]
    if not enough:
        return None
    best = max(point["qps"] for point in enough)
    for low, high in itertools.pairwise(points):
        if low["recall"] < recall <= high["recall"]:
            share = (recall - low["recall"]) / (high["recall"] - low["recall"])
            best = max(best, low["qps"] + share * (high["qps"] - low["qps"]))
    return best


def table(data: Data, results: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        f"### {data.name}, {data.metric}",
        "",
        "| engine | build s | MB | q/s at 0.99 | at 0.999 | batch | 1 % | 10 % | 50 % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        rates = [at_recall(result, recall) for recall in (0.99, 0.999)]
        cells = [f"{rate:,.0f}" if rate else "-" for rate in rates]
        batch = result["batch"]
        cells.append(
            f"{batch['qps']:,.0f} ({batch['qps'] / batch['alone']:.2f}x)" if batch else "-"
        )
        for percent in PERCENTS:
            found = result["filtered"].get(percent)
            cells.append(f"{found['qps']:,.0f}" if found else "-")
        name = f"{result['name']} {result['version']}"
        size = f"{result['bytes'] / 1e6:,.0f}"
        lines.append(f"| {name} | {result['build']:.1f} | {size} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(everything: list[tuple[Data, list[dict[str, Any]]]], path: Path) -> None:
    """The frontiers, a panel for each set."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        1, len(everything), figsize=(6 * len(everything), 5), squeeze=False
    )
    for panel, (data, results) in zip(panels[0], everything, strict=True):
        for result in results[:-1]:
            points = sorted(result["points"], key=lambda point: point["recall"])
            points = [
                point
                for at, point in enumerate(points)
                if all(point["qps"] >= other["qps"] for other in points[at:])
                and point["recall"] >= 0.8  # noqa: PLR2004
            ]
            ours = result["name"] == Ours.name
            panel.plot(
                [max(1 - point["recall"], 1e-4) for point in points],
                [point["qps"] for point in points],
                marker="o",
                markersize=4,
                linewidth=2.5 if ours else 1.2,
                color="black" if ours else None,
                label=result["name"],
                zorder=3 if ours else 2,
            )
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.invert_xaxis()
        ticks = (0.2, 0.1, 0.05, 0.01, 0.001, 0.0001)
        panel.set_xticks(ticks, [f"{1 - tick:g}" for tick in ticks])
        panel.minorticks_off()
        panel.set_xlabel(f"recall@{TOP_K}")
        panel.set_ylabel("queries a second, one thread")
        panel.set_title(f"{data.name}, {data.metric}")
        panel.grid(alpha=0.3)
    panels[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Measure, and print what docs/benchmarks.md shows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PEERS_DATA", ".")))
    parser.add_argument("--only", help="a part of the names of the sets")
    parser.add_argument("--peers", help="parts of the peers' names, with commas between them")
    parser.add_argument("--plot", type=Path, help="where the plot goes")
    parser.add_argument("--json", type=Path, help="where the figures go")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {THREADS} cores, {sys.version}")
    everything = []
    for data in sets(options.data):
        if options.only and options.only.lower() not in data.name.lower():
            continue
        results = []
        for kind in (*PEERS, Ours):
            wanted = (options.peers or "").lower().split(",")
            if kind is not Ours and not any(part in kind.name.lower() for part in wanted):
                continue
            folder = Path(tempfile.mkdtemp())
            print(f"{data.name}: {kind.name}", flush=True)
            try:
                results.append(measure(kind(data, folder)))
            except Exception as error:  # noqa: BLE001
                print(f"  {kind.name} could not be measured: {error!r}")
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        results[-1]["name"] += ", again"
        everything.append((data, results))
        print(table(data, results), flush=True)
        if options.json:
            told = {data.name: results for data, results in everything}
            options.json.write_text(json.dumps(told, indent=1, default=str))
    if options.plot:
        plot(everything, options.plot)


if __name__ == "__main__":
    main()
