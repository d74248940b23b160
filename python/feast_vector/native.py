"""The native API: a feature view resolved once, then searched, read and counted without protos.

Answers are Arrow record batches of native types, which pandas, polars and DuckDB take without a
copy; ``as_dict=True`` gives plain columns, ``{"id": [...], "name": [...], ...}``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from feast.feature_view import DUMMY_ENTITY_ID

from feast_vector import _arrow, _keys, _messages, arguments, views
from feast_vector.errors import FeastVectorError, InvalidInputError, NotFoundError
from feast_vector.filters import FilterLike, conditions
from feast_vector.online_store import store_of
from feast_vector.tables import ROWS_AT_ONCE, TableWriter

if TYPE_CHECKING:
    from feast import FeatureStore
    from numpy.typing import NDArray

    from feast_vector import _core

Columns: TypeAlias = "pa.RecordBatch | dict[str, list[Any]]"
"""Rows by column."""

Keys: TypeAlias = Any
"""Entities: a value, or values, of the view's one join key; a dict, or dicts, of join keys; a dict
with a column for each; or an Arrow table, a pandas or polars frame, or a series."""


class VectorView:
    """A feature view of a store of ours, resolved once.

    It keeps what the view was when it was opened: after ``feast apply`` changes it, open it anew.
    Data is always as of now. May be shared by threads, and pickled, for Ray, joblib and other
    processes.
    """

    def __init__(self, store: FeatureStore, view: str) -> None:
        """Open the feature view of that name.

        Raises:
            InvalidInputError: The store's online store is not feast-vector.
            feast.errors.FeatureViewNotFoundException: There is no such view.
        """
        self.name = view
        self._config = store.config
        self._online_store = store_of(store)
        self._table: Any = store.registry.get_any_feature_view(
            view, store.project, allow_cache=True
        )
        self._resolve()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without what belongs to this process."""
        resolved = ("_declaration", "_key_types", "_features")
        return {name: value for name, value in vars(self).items() if name not in resolved}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Resolve the view again, in another process; the file is opened with the first use."""
        vars(self).update(state)
        self._resolve()

    def _resolve(self) -> None:
        self._declaration = views.declaration(self._config, self._table)
        self._key_types = {
            field.name: field.dtype.to_value_type()
            for field in getattr(self._table, "entity_columns", [])
            if field.name != DUMMY_ENTITY_ID
        }
        self._features = [field.name for field in self._table.features]

    def __repr__(self) -> str:
        """Name the view."""
        return f"VectorView({self.name!r})"

    @property
    def _engine(self) -> _core.Engine:
        return self._online_store.engine(self._config)

    def search(  # noqa: PLR0913
        self,
        query: Sequence[Any] | NDArray[Any] | None = None,
        top_k: int = 10,
        *,
        text: str | Sequence[str] | None = None,
        filters: FilterLike | None = None,
        features: str | Sequence[str] | None = None,
        feature: str | None = None,
        metric: str | None = None,
        max_distance: float | None = None,
        offset: int = 0,
        text_match: Literal["any", "all", "phrase", "prefix"] | None = None,
        weights: tuple[float, float] | None = None,
        rrf_k: float | None = None,
        past_ttl: bool | None = None,
        exact: bool = False,
        explain: bool = False,
        cpu_seconds: float | None = None,
        as_dict: bool = False,
    ) -> Any:  # noqa: ANN401
        """Find the best rows by vector, by text, or by both rankings fused; best first.

        Args:
            query: A vector of shape ``(d,)``, or many of shape ``(q, d)``, which use all cores.
            top_k: The most rows for each query.
            text: A text, or one for each of several queries. With ``query`` as well, the two
                rankings are fused by reciprocal rank (Cormack et al., SIGIR 2009).
            filters: A filter of Feast's, or a dict of its shape; applied before ranking, so that
                ``top_k`` rows come back whenever that many pass.
            features: Features to return, or the name of one; all but vectors, if not given.
            feature: The feature to search; the view's vector field, if not given.
            metric: ``cosine``, ``L2``, ``inner_product`` or ``L1``, instead of the feature's or
                else the store's; another than that is searched without an index.
            max_distance: Leave out rows that are further away.
            offset: Pass over so many of the best rows.
            text_match: What of the text a row has to have: ``any`` of its words, ``all``, all
                side by side as a ``phrase``, or all with the last as a ``prefix``.
            weights: Weights of the rankings by vector and by text.
            rrf_k: The k of the fusion, 60 by default.
            past_ttl: Whether to find rows past the view's ttl; if not given, they are found unless
                ``enforce_ttl`` is set.
            exact: Compare with every vector that passes the filter, whatever index there is.
            explain: Also return how the rows were found, as a dict.
            cpu_seconds: What it may take of the processors, over all threads, without loading what
                is not in memory yet; unbounded, if not given.
            as_dict: Return a dict of lists instead of Arrow.

        Returns:
            A ``pyarrow.RecordBatch``: ``query`` (int32, the number of the query, only where
            several were passed), the join keys, the features, ``event_timestamp``, and whichever
            the search has of ``distance`` (float64, lower is nearer), ``text_rank`` (float64,
            BM25, higher is better; 0 where no word matches) and ``score`` (float64, the fused
            one, higher is better). A feature by one of these names keeps it, and ours gets a
            ``_`` in front. With ``explain``, a tuple of that and a dict.

        Raises:
            InvalidInputError: A wrong query, filter, metric or number; the message says which.
            NotFoundError: A feature that the view does not have.
        """
        online = self._config.online_store
        searched: dict[str, Any] = {}
        many = text is not None and not isinstance(text, str)
        if query is not None:
            arguments.check_vector_search(online)
            field = self._vector_field(feature)
            queries, several = arguments.query_vectors(query, self._table, field.name, many=True)
            many = many or several
            searched = {
                "feature": field.name,
                "queries": queries,
                "metric": views.named_metric(
                    metric, f"feature view '{self.name}', feature '{field.name}'"
                )
                or views.metric_of(self._config, self._table, field),
                "max_distance": max_distance,
            }
        elif max_distance is not None:
            message = "max_distance needs a query vector: texts have no distance"
            raise InvalidInputError(message, "invalid_argument")
        vector_weight, text_weight = weights or (online.vector_weight, online.text_weight)
        past_ttl = not online.enforce_ttl if past_ttl is None else past_ttl
        self._online_store._look_once(self._engine, self._declaration, self.name)  # noqa: SLF001
        batch, explanation = self._engine.search(
            self._declaration,
            top_k=arguments.positive(top_k),
            offset=arguments.not_negative(offset, "offset"),
            texts=arguments.query_texts(
                self._config, self._table, text, has_vectors=query is not None
            ),
            text_match=text_match or online.text_match,
            rrf_k=online.rrf_k if rrf_k is None else rrf_k,
            vector_weight=vector_weight,
            text_weight=text_weight,
            filter=None if filters is None else conditions(filters, online.limits),
            not_before=None if past_ttl else views.not_before(self._table),
            features=self._chosen(features, searched.get("feature")),
            exact=exact,
            explain=explain,
            numbers_queries=many,
            typed=True,
            cpu_seconds=cpu_seconds,
            **searched,
        )
        answer = batch.to_pydict() if as_dict else batch
        return (answer, json.loads(explanation)) if explanation else answer

    def read(
        self, keys: Keys, features: str | Sequence[str] | None = None, *, as_dict: bool = False
    ) -> Columns:
        """Read features by entity key: a row for each key, in their order.

        Args:
            keys: A value, or values, of the join key; or, for any number of join keys, a dict or
                dicts, a dict of columns, an Arrow table, or a data frame.
            features: Features to return, or the name of one; all, if not given.
            as_dict: Return a dict of lists instead of Arrow.

        Returns:
            The join keys, the features and ``event_timestamp``, which is null where there is no
            such row.
        """
        serialized = self._serialized(keys)
        engine = self._engine
        self._online_store._look_once(engine, self._declaration, self.name)  # noqa: SLF001
        chosen = self._features if features is None else self._chosen(features, None)
        batch = engine.read(self._declaration, serialized, chosen, typed=True)
        if self._config.online_store.enforce_ttl:
            batch = self._unexpired(batch)
        return batch.to_pydict() if as_dict else batch

    def delete(self, keys: Keys) -> int:
        """Delete rows by entity key, from the table, the text index and every later answer.

        Returns:
            How many of them were there.
        """
        return self._engine.delete(self._declaration, self._serialized(keys))

    def write_arrow(
        self,
        data: Any,  # noqa: ANN401
        *,
        batch_size: int = ROWS_AT_ONCE,
    ) -> dict[str, int]:
        """Write rows that are Arrow already, without a proto or a Python object for a value.

        Args:
            data: A ``pyarrow`` table, batch or reader, a polars or pandas data frame, a DuckDB
                relation, or whatever else has ``__arrow_c_stream__``. Its columns are the join
                keys, the event timestamp (named as in the view's source, else
                ``event_timestamp``), the created timestamp if the source has one, and any of the
                features; features that are left out keep what they have. A stream is read piece
                by piece.
            batch_size: Rows of a transaction. Each is written whole or not at all.

        Returns:
            How many rows were ``written``, and how many were ``ignored`` because what is stored is
            newer.

        Raises:
            InvalidInputError: Columns that are missing or not the view's, or values that a feature
                cannot hold exactly: whole numbers out of range, nulls within lists. Batches before
                that of the error are written; the message says how many rows.
        """
        try:
            reader = _arrow.reader(data)
        except TypeError as cause:
            message = (
                f"feature view '{self.name}': {type(data).__name__} is no Arrow data; pass a "
                "pyarrow, polars or pandas table, or anything with __arrow_c_stream__"
            )
            raise InvalidInputError(message, "invalid_argument") from cause
        writer = TableWriter(
            self._engine, self._config, self._table, reader.schema, as_feast_does=False
        )
        try:
            writer.write(reader, arguments.positive(batch_size, "batch_size"))
        except FeastVectorError as error:
            done = writer.written + writer.ignored
            if done:
                error.args = (f"{error} (the first {done} rows are written)",)
            raise
        _messages.rows_ignored(self.name, writer.written, writer.ignored)
        return {"written": writer.written, "ignored": writer.ignored}

    def count(self, filters: FilterLike | None = None) -> int:
        """How many rows there are, or pass the filter; rows past the view's ttl among them."""
        limits = self._config.online_store.limits
        passing = None if filters is None else conditions(filters, limits)
        return self._engine.count(self._declaration, passing)

    def optimize(self, feature: str | None = None) -> dict[str, Any]:
        """Build the indexes of the view's vectors anew, or that of one feature: one segment each.

        They are built in the background anyhow, unless ``index_builds`` says otherwise; this is for
        when they shall be at their best now. Searches and writes go on meanwhile.

        Returns:
            By feature what was built and the recall that was measured; None for a feature with so
            few vectors that comparing them all is as fast.
        """
        reports: dict[str, Any] = json.loads(self._engine.optimize(self._declaration, feature))
        return reports

    def indexes(self) -> list[dict[str, Any]]:
        """The indexes of the view's vectors: their files, and the recall measured with each."""
        indexes: list[dict[str, Any]] = json.loads(self._engine.indexes(self._declaration))
        return indexes

    def _unexpired(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows, without those past the view's ttl."""
        limit = views.not_before(self._table)
        if limit is None:
            return batch
        event = batch.num_columns - 1
        limit = pa.scalar(limit, pa.int64()).cast(batch.column(event).type)
        expired = pc.fill_null(pc.less(batch.column(event), limit), fill_value=False)
        columns = [
            column
            if at < len(self._key_types)
            else pc.if_else(expired, pa.scalar(None, column.type), column)
            for at, column in enumerate(batch.columns)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=batch.schema)

    def _vector_field(self, feature: str | None) -> Any:  # noqa: ANN401
        if feature is None:
            return arguments.vector_field(self._table)
        for field in self._table.features:
            if field.name == feature:
                return field
        raise self._unknown(feature)

    def _chosen(self, features: str | Sequence[str] | None, searched: str | None) -> list[str]:
        if features is None:
            return [
                field.name
                for field in self._table.features
                if field.name != searched and not field.vector_index
            ]
        is_one = isinstance(features, str) or not isinstance(features, Iterable)
        names: list[Any] = [features] if is_one else list(features)
        if not all(isinstance(name, str) for name in names):
            message = (
                f"feature view '{self.name}': features have to be the name of one, or a list of "
                f"names, not {features!r}"
            )
            raise InvalidInputError(message, "invalid_argument")
        # Join keys are part of every answer.
        chosen = [name for name in names if name not in self._key_types]
        for name in chosen:
            if name not in self._features:
                raise self._unknown(name)
        return chosen

    def _unknown(self, feature: str) -> NotFoundError:
        message = (
            f"feature view '{self.name}' has no feature '{feature}'; its features are: "
            f"{', '.join(sorted(self._features))}"
        )
        return NotFoundError(message, "unknown_feature")

    def _serialized(self, keys: Keys) -> list[bytes]:
        return _keys.serialized(self.name, self._key_types, keys)


def open_view(store: FeatureStore, view: str) -> VectorView:
    """Resolve a feature view once, to search and read it many times."""
    return VectorView(store, view)


def search(
    store: FeatureStore,
    view: str,
    query: Sequence[Any] | NDArray[Any] | None = None,
    top_k: int = 10,
    **options: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """Search a view once; see :meth:`VectorView.search`. For many searches, open the view once."""
    return open_view(store, view).search(query, top_k, **options)
