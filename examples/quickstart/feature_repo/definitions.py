"""A feature repo: items with a name, two numbers and an embedding."""

from datetime import timedelta

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, Float64, Int64, String

item = Entity(name="item", join_keys=["id"], value_type=ValueType.INT64)

source = FileSource(path="data/items.parquet", timestamp_field="event_timestamp")

items = FeatureView(
    name="items",
    entities=[item],
    ttl=timedelta(days=365),
    schema=[
        Field(name="id", dtype=Int64),
        Field(name="name", dtype=String),
        Field(name="data", dtype=Float64),
        Field(name="number", dtype=Int64),
        Field(
            name="embedding",
            dtype=Array(Float32),
            vector_index=True,
            vector_length=32,
            vector_search_metric="cosine",
        ),
    ],
    source=source,
    online=True,
)
