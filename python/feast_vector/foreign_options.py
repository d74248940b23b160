"""Options of other stores, as Feast's examples have them: only ``type`` was changed."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Collection, Mapping
from typing import Any

_SERVER = "there is no server to connect to; remove it"
_LENGTH = "declare the length at the field, `Field(..., vector_length=…)`, to have it checked"
_PARTITIONS = "partitions and probes follow from the rows and from `target_recall`"
_FILES = "index files are beside the database; set `path`"
_TUNING = "nothing of the kind is needed here; remove it"

# By option of another store: what to write instead.
_IGNORED = {
    **dict.fromkeys(
        (
            "api_key", "authenticator", "account", "batch_size", "client_kwargs", "cluster_members",
            "cluster_name", "collection_suffix", "config_path", "conn_type", "connect_timeout",
            "connection_string", "connection_pool_size", "database", "database_name", "db_name",
            "db_schema", "discovery_token", "endpoint_url", "grpc_port", "host", "hosts", "https",
            "keepalives_idle", "keyspace", "max_conn", "min_conn", "namespace", "password", "port",
            "prefer_grpc", "protocol_version", "redis_type", "region", "scheme", "schema",
            "schema_", "sentinel_master", "sslcert_path", "sslkey_path", "sslmode",
            "sslrootcert_path", "timeout", "token", "uri", "url", "user", "username", "verify_ssl",
            "max_pool_connections", "consistent_reads", "instance", "project_id",
        ),
        _SERVER,
    ),
    **dict.fromkeys(("embedding_dim", "vector_len", "dimension"), _LENGTH),
    **dict.fromkeys(
        ("nlist", "nprobe", "ef_construction", "ef", "m", "index_params", "search_params"),
        _PARTITIONS,
    ),
    "index_path": _FILES,
    **dict.fromkeys(
        (
            "full_scan_for_deletion", "skip_dedup", "varchar_max_length", "vector_name",
            "write_batch_size", "sync_client",
        ),
        _TUNING,
    ),
}  # fmt: skip

_METRICS = {"metric_type": "similarity"}

_FLAT = ("FLAT", "BIN_FLAT", "INDEXFLATL2", "INDEXFLATIP")
_INVERTED = ("IVF",)
_GRAPHS = ("HNSW", "AUTOINDEX", "DISKANN", "SCANN")


def translated(options: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The options in our terms: those of other stores translated, or left out with a warning.

    Raises:
        ValueError: An option that no store has, or one that contradicts ours.
    """
    taken: dict[str, Any] = {}
    ignored: dict[str, str] = {}
    unknown: list[str] = []
    for name, value in options.items():
        if name in known:
            taken[name] = value
        elif name in _METRICS or name == "search_past_ttl":
            continue
        elif name in _IGNORED:
            ignored[name] = _IGNORED[name]
        else:
            unknown.append(name)
    if unknown:
        listed = "\n".join(_unknown(name, known) for name in unknown)
        message = f"unknown options in the online_store section:\n{listed}"
        raise ValueError(message)
    if "metric_type" in options:
        _set(taken, "similarity", options["metric_type"], "metric_type")
    if isinstance(taken.get("index_type"), str):
        taken["index_type"] = _index_type(taken["index_type"])
    if "search_past_ttl" in options:
        _set(taken, "enforce_ttl", not options["search_past_ttl"], "search_past_ttl")
        ignored["search_past_ttl"] = (
            "searches find rows past their view's ttl unless `enforce_ttl: true` leaves them out"
        )
    if ignored:
        listed = "; ".join(f"`{name}`: {advice}" for name, advice in ignored.items())
        warnings.warn(
            f"options of the online_store section that `type: vector` has no use for: {listed}",
            UserWarning,
            stacklevel=2,
        )
    return taken


def _set(taken: dict[str, Any], name: str, value: object, foreign: str) -> None:
    ours = taken.setdefault(name, value)
    if str(ours).lower() != str(value).lower():
        message = f"`{foreign}` says something else than `{name}`; remove `{foreign}`"
        raise ValueError(message)


def _index_type(name: str) -> str:
    """Our kind of index for a name that another store has for its own."""
    plain = name.upper().replace("-", "_")
    if plain in _FLAT:
        return "flat"
    if plain.startswith(_INVERTED):
        return "ivf"
    return "auto" if plain.startswith(_GRAPHS) else name.lower()


def _unknown(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, [*known, *_IGNORED, *_METRICS], n=1, cutoff=0.7)
    hint = f"did you mean `{close[0]}`?" if close else f"there are: {', '.join(sorted(known))}"
    # As pydantic lists them.
    return f"{name}\n  Extra inputs are not permitted; {hint}"
