"""Elasticsearch: what is polled, and the actions."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from nms_workers.change import Change
from nms_workers.errors import Refused
from nms_workers.records import Entity, Record, Sample
from nms_workers.service import Service, action, poll
from nms_workers.services.elasticsearch import indices, keeping, readings, upkeep
from nms_workers.services.elasticsearch.client import ElasticsearchClient
from nms_workers.services.elasticsearch.model import CatShard
from nms_workers.services.elasticsearch.target import (
    ElasticsearchTarget,
    IndexSettings,
    Mappings,
    Name,
    Retention,
)

Segments = Annotated[int, Field(ge=1, le=1000)]

_REPOSITORIES = 50  # whose snapshots one poll reads
_DATA_STREAM_LIFECYCLE = (8, 12)  # the version that first tells how it does


class Elasticsearch(Service):
    """Search and log store: reads a cluster's health, nodes and indices, and looks after how long data is kept.

    Versions 8 and 9, each by the official client for it. An API key, a user or a service account's token; reading takes
    the privilege `monitor` of the cluster and of the indices (and `read_ilm`, `read_slm` and `monitor_snapshot` for
    lifecycles and snapshots), the actions take `manage` of the index and `manage_ilm`.

    Elasticsearch Serverless has no such thing as nodes and shards: it refuses these polls, which the target's `skip`
    then names.
    """

    kind = "elasticsearch"
    Target = ElasticsearchTarget
    client = ElasticsearchClient
    port = 9200

    @poll(every="15s", enumerates=("cluster", "cluster_status"))
    def health(self, client: ElasticsearchClient) -> Iterator[Record]:
        """Version and status of the cluster, its nodes and shards, and what waits to be done."""
        yield from readings.of_health(client.get_root(fresh=True), client.get_health())

    @poll(every="60s", enumerates=("health_indicator",))
    def health_report(self, client: ElasticsearchClient) -> Iterator[Record]:
        """Each part of the cluster that can ail; what is not green fires with its meaning and what to do (8.7+)."""
        yield from readings.of_report(client.get_health_report())

    @poll(every="60s")
    def cluster_stats(self, client: ElasticsearchClient) -> Iterator[Record]:
        """Sums over all nodes and indices."""
        yield from readings.of_cluster(client.get_cluster_stats())

    @poll(every="30s", enumerates=("node",))
    def nodes(self, client: ElasticsearchClient) -> Iterator[Record]:
        """Each node: heap, garbage collection, thread pools, disks, breakers, indexing, searching, network, ingest."""
        target, stats = client.target, client.get_node_stats()
        yield from readings.of_nodes(stats, client.get_nodes(), target.max_nodes, target.max_pipelines)

    @poll(every="60s", volatile=True, enumerates=("index", "index_red"))
    def indices(self, client: ElasticsearchClient) -> Iterator[Record]:
        """The biggest indices each, and sums over all that are selected; a red one fires."""
        found, most = client.get_indices(), client.target.max_indices
        yield from readings.of_indices(found, most)
        yield from readings.of_red(found, client.target.max_events)
        yield from readings.of_all_indices(client.get_all_stats())
        names = [one.index for one in found[:most] if one.status == "open"]
        for name, stats in client.get_index_stats(names):
            yield from readings.of_index(name, stats)

    @poll(every="60s", enumerates=("shards_unassigned",))
    def shards(self, client: ElasticsearchClient) -> Iterator[Record]:
        """Shards without a node, by why; an index that has some fires, with the cluster's explanation."""
        if not client.get_health().get("unassigned_shards"):
            return  # the list of all shards may be long

        def explain(shard: CatShard) -> str:
            try:
                return client.explain_shard(shard)
            except Refused:  # it found a node meanwhile
                return ""

        yield from upkeep.of_shards(client.get_shards(), explain, client.target.max_events)

    @poll(every="30s", volatile=True, enumerates=("long_task",))
    def tasks(self, client: ElasticsearchClient) -> Iterator[Record]:
        """What the nodes do just now, by action; what takes long fires."""
        yield from upkeep.of_tasks(client.get_tasks(), client.target.long_task, client.target.max_events)

    @poll(every="5m", enumerates=("lifecycle_error",))
    def lifecycle(self, client: ElasticsearchClient) -> Iterator[Record]:
        """Index lifecycle management and data stream lifecycle; an index that stands in an error fires."""
        most = client.target.max_events
        yield from upkeep.of_ilm(client.get_ilm_mode(), client.get_ilm_errors(), most)
        if client.get_root().version.release < _DATA_STREAM_LIFECYCLE:
            return
        stats = client.get_lifecycle_stats()
        yield from upkeep.of_lifecycle(stats)
        failing = [one.name for one in stats.data_streams if one.backing_indices_in_error]
        for stream in failing[:most]:
            yield from upkeep.of_lifecycle_errors(stream, client.get_lifecycle_errors(stream), most)
        yield Sample("elasticsearch_left_out", max(0, len(failing) - most), {"what": "lifecycle_errors"})

    @poll(every="10m", enumerates=("repository", "snapshot_failed", "repository_broken"))
    def snapshots(self, client: ElasticsearchClient) -> Iterator[Record]:
        """Snapshot repositories: the age of the last whole snapshot; a failed one fires."""
        repositories = client.get_repositories()
        yield Sample("elasticsearch_snapshot_repositories", len(repositories))
        for name, repository in repositories.items():
            yield Entity("repository", name, {"type": repository.type})
        for name in sorted(repositories)[:_REPOSITORIES]:
            try:
                held = client.get_snapshots(name)
            except Refused as exc:  # this one is broken; the others are read
                yield upkeep.broken_repository(name, exc.message)
                continue
            yield from upkeep.of_repository(name, held)
        yield Sample("elasticsearch_left_out", max(0, len(repositories) - _REPOSITORIES), {"what": "repositories"})
        yield from upkeep.of_slm(client.get_slm_stats())

    @action(undo="remove_created_index", serialize_by="index")
    def create_index(
        self,
        client: ElasticsearchClient,
        index: Name,
        mappings: Mappings | None = None,
        settings: IndexSettings | None = None,
    ) -> Change:
        """Make an index with these mappings and settings, unless there is one like it."""
        return indices.create(
            client, index, {str(name): told for name, told in (mappings or {}).items()}, settings or {}
        )

    @action(serialize_by="index")
    def remove_created_index(self, client: ElasticsearchClient, index: Name, before: dict[str, Any]) -> Change:
        """Delete the index that `create_index` made, while it is empty."""
        if not before.get("made"):
            return Change(False, f"index {index} was there before", before, before)
        return indices.remove_empty(client, index, str(before["made"]))

    @action(confirm=True, serialize_by="index")
    def delete_index(self, client: ElasticsearchClient, index: Name) -> Change:
        """Delete an index with its documents; never one of the system, of a data stream, or by a pattern."""
        return indices.delete(client, index)

    @action(undo="restore_retention")
    def set_retention(
        self, client: ElasticsearchClient, name: Name, retention: Retention, shared: bool = False
    ) -> Change:
        """Keep the data of a data stream or an index so long (`30d`): by its lifecycle, or the policy that it has.

        A policy that serves others too is changed only with `shared`.
        """
        return keeping.set_retention(client, name, retention, shared)

    @action()
    def restore_retention(self, client: ElasticsearchClient, name: Name, before: dict[str, Any]) -> Change:
        """Keep data as long as before `set_retention`."""
        return keeping.restore(client, name, before)

    @action(deadline="1h", serialize_by="index")
    def force_merge(self, client: ElasticsearchClient, index: Name, max_num_segments: Segments = 1) -> Change:
        """Merge an index that is not written to any more; a merge that takes longer than the job goes on by itself."""
        return indices.force_merge(client, index, max_num_segments)
