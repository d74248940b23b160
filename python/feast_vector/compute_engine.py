"""A compute engine that writes what the offline store gives as Arrow, without protos.

Chosen by ``batch_engine: vector`` in ``feature_store.yaml``. It is Feast's local engine but for
what costs much in a materialization and changes nothing: the file store does not hash what it
reads, rows of a view without a filter do not go through pandas, those that are not the latest are
found by their keys and times alone, and columns are serialized whole. The rows that are stored are
the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from feast.infra.common.materialization_job import MaterializationJobStatus
from feast.infra.compute_engines.local.arrow_table_value import ArrowTableValue
from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.infra.compute_engines.local.feature_builder import LocalFeatureBuilder
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.compute_engines.local.local_node import LocalNode
from feast.infra.compute_engines.local.nodes import LocalOutputNode, LocalSourceReadNode
from feast.repo_config import FeastConfigBaseModel

from feast_vector import _messages
from feast_vector._dask import frames_named_by_identity
from feast_vector.online_store import VectorOnlineStore
from feast_vector.tables import ROWS_AT_ONCE, TableWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa
    from feast.infra.common.materialization_job import MaterializationTask
    from feast.infra.compute_engines.dag.context import ColumnInfo, ExecutionContext
    from feast.infra.registry.base_registry import BaseRegistry


class VectorComputeEngineConfig(FeastConfigBaseModel):
    """The ``batch_engine`` section of ``feature_store.yaml``."""

    type: Literal["vector", "feast_vector.compute_engine.VectorComputeEngine"] = "vector"
    """Chooses this engine."""

    backend: str | None = None
    """The data frames that transformations get, as for Feast's local engine: ``pandas`` or
    ``polars``."""


class VectorComputeEngine(LocalComputeEngine):
    """Feast's local engine, writing Arrow to our online store."""

    def _materialize_one(
        self,
        registry: BaseRegistry,
        task: MaterializationTask,
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> LocalMaterializationJob:
        job_id = f"{task.feature_view.name}-{task.start_time}-{task.end_time}"
        context = self.get_execution_context(registry, task)
        try:
            builder = _Builder(registry, task, backend=self._get_backend(context))
            builder.build().execute(context)
        except Exception as error:  # noqa: BLE001
            return LocalMaterializationJob(
                job_id=job_id, status=MaterializationJobStatus.ERROR, error=error
            )
        return LocalMaterializationJob(job_id=job_id, status=MaterializationJobStatus.SUCCEEDED)


class _Builder(LocalFeatureBuilder):
    """Feast's plan with other nodes where these cost much and change nothing."""

    task: MaterializationTask

    def build_source_node(self, view: Any) -> Any:  # noqa: ANN401
        """Read."""
        node = _SourceNode(
            "source",
            view.source,
            self.get_column_info(view),
            self.task.start_time,
            self.task.end_time,
        )
        self.nodes.append(node)
        return node

    def build_filter_node(self, view: Any, input_node: Any) -> Any:  # noqa: ANN401
        """Filter, if there is a filter: a materialization has no entities to compare times with."""
        if getattr(view, "filter", None):
            return super().build_filter_node(view, input_node)
        return input_node

    def build_dedup_node(self, view: Any, input_node: Any) -> Any:  # noqa: ANN401
        """Keep the latest row of each entity."""
        node = _LatestNode("dedup", self.get_column_info(view), inputs=[input_node])
        self.nodes.append(node)
        return node

    def build_output_nodes(self, view: Any, input_node: Any) -> Any:  # noqa: ANN401, ARG002
        """Write."""
        node = _OutputNode(
            "output", self.dag_root.view, self.task.tqdm_builder, inputs=[input_node]
        )
        self.nodes.append(node)
        return node


class _SourceNode(LocalSourceReadNode):
    """Reads as Feast does."""

    def execute(self, context: ExecutionContext) -> ArrowTableValue:
        with frames_named_by_identity():
            return super().execute(context)


class _LatestNode(LocalNode):
    """Leaves the latest row of each entity, as Feast's node does."""

    def __init__(self, name: str, columns: ColumnInfo, inputs: list[Any]) -> None:
        super().__init__(name, inputs=inputs)
        self._columns = columns

    def execute(self, context: ExecutionContext) -> ArrowTableValue:
        table: pa.Table = self.get_single_table(context).data
        keys = self._columns.join_keys_columns
        if keys:
            times = [self._columns.timestamp_column, self._columns.created_timestamp_column]
            times = [name for name in times if name in table.column_names]
            frame = table.select(list(dict.fromkeys([*keys, *times])))
            frame = frame.to_pandas(ignore_metadata=True)
            if frame.duplicated(subset=keys).any():
                latest = frame.sort_values(by=times, ascending=False).drop_duplicates(subset=keys)
                table = table.take(latest.index.to_numpy())
        output = ArrowTableValue(table)
        context.node_outputs[self.name] = output
        return output


class _OutputNode(LocalOutputNode):
    """Writes to our online store as Arrow, and to others as Feast does."""

    def __init__(
        self,
        name: str,
        view: Any,  # noqa: ANN401
        progress_bar: Callable[[int], Any] | None,
        inputs: list[Any],
    ) -> None:
        super().__init__(name, view, inputs=inputs)
        self._progress_bar = progress_bar

    def execute(self, context: ExecutionContext) -> ArrowTableValue:
        store = context.online_store
        if not isinstance(store, VectorOnlineStore):
            return super().execute(context)
        table: pa.Table = self.get_single_table(context).data
        output = ArrowTableValue(table)
        context.node_outputs[self.name] = output
        if table.num_rows == 0:
            return output
        config, view = context.repo_config, self.feature_view
        if view.online:
            self._write(store, context, table)
        if view.offline:
            context.offline_store.offline_write_batch(
                config=config, feature_view=view, table=table, progress=lambda _: None
            )
        return output

    def _write(self, store: VectorOnlineStore, context: ExecutionContext, table: pa.Table) -> None:
        config = context.repo_config
        writer = TableWriter(
            store.engine(config), config, self.feature_view, table.schema, as_feast_does=True
        )
        rows = config.materialization_config.online_write_batch_size or ROWS_AT_ONCE
        if self._progress_bar is None:
            writer.write(table.to_reader(), rows)
        else:
            with self._progress_bar(table.num_rows) as bar:
                writer.write(table.to_reader(), rows, bar.update)
        _messages.rows_ignored(self.feature_view.name, writer.written, writer.ignored)
