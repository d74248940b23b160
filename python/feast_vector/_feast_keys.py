"""Entity keys as Feast's own stores have them, in each of its serialization versions."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import cast

from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value, ValueType


def key_message(stored: bytes, join_keys: list[str]) -> bytes:
    """The ``EntityKey`` message of a key in Feast's serialization version 3, 2 or 1."""
    names, values = _named_parts(stored) or _unnamed_parts(stored, join_keys)
    if sorted(names) != join_keys:
        message = (
            f"the entity key has the join keys {', '.join(names)}, and the view has "
            f"{', '.join(join_keys)}"
        )
        raise ValueError(message)
    message = EntityKey(join_keys=names, entity_values=values)
    return cast("bytes", message.SerializeToString())


def _named_parts(stored: bytes) -> tuple[list[str], list[Value]] | None:
    """Names and values of version 3, which says how long each name is; None for others."""
    names = []
    try:
        (count,) = struct.unpack_from("<I", stored)
        at = 4
        for _ in range(count):
            kind, length = struct.unpack_from("<2I", stored, at)
            at += 8
            if kind != ValueType.STRING or at + length > len(stored):
                return None
            names.append(stored[at : at + length].decode())
            at += length
        values = list(_values_of(stored[at:]))
    except (struct.error, UnicodeDecodeError, ValueError):
        return None
    return (names, values) if len(names) == len(values) else None


def _unnamed_parts(stored: bytes, join_keys: list[str]) -> tuple[list[str], list[Value]]:
    """Names and values of versions 1 and 2, where only who knows the names can tell their ends."""
    prefix = b"".join(struct.pack("<I", ValueType.STRING) + name.encode() for name in join_keys)
    if stored.startswith(prefix):
        values = list(_values_of(stored[len(prefix) :]))
        if len(values) == len(join_keys):
            return join_keys, values
    message = f"the entity key is not one of the join keys {', '.join(join_keys)}"
    raise ValueError(message)


def _values_of(stored: bytes) -> Iterator[Value]:
    at = 0
    while at < len(stored):
        kind, length = struct.unpack_from("<2I", stored, at)
        part = stored[at + 8 : at + 8 + length]
        if len(part) != length:
            message = "an entity key is cut off"
            raise ValueError(message)
        at += 8 + length
        if kind == ValueType.STRING:
            yield Value(string_val=part.decode())
        elif kind == ValueType.BYTES:
            yield Value(bytes_val=part)
        elif kind == ValueType.INT32:
            yield Value(int32_val=int.from_bytes(part, "little", signed=True))
        elif kind == ValueType.INT64:
            yield Value(int64_val=int.from_bytes(part, "little", signed=True))
        elif kind == ValueType.UNIX_TIMESTAMP:
            yield Value(unix_timestamp_val=int.from_bytes(part, "little", signed=True))
        else:
            message = f"an entity key has a value of the unknown type {kind}"
            raise ValueError(message)
