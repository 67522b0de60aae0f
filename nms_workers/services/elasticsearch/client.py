"""The Elasticsearch client: reads a cluster, searches it and writes to it. Usable without the fleet.

client = ElasticsearchClient(ElasticsearchTarget(url="https://es.example.net:9200", token="env:ES_API_KEY"))
for hit in client.search("logs-*", {"match": {"host": "fw1"}}, limit=100):
    print(hit.source)
client.close()
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from nms_workers.errors import Refused
from nms_workers.services.elasticsearch import bulk, model, search
from nms_workers.services.elasticsearch.failures import NotThere
from nms_workers.services.elasticsearch.session import Session
from nms_workers.services.elasticsearch.target import ElasticsearchTarget

T = TypeVar("T")
Json = dict[str, Any]

_NAMES_BYTES = 3000  # a request line has at most 4096 (http.max_initial_line_length)
_SNAPSHOTS = 50  # the newest of a repository that are looked at
_NODE_SECTIONS = (
    "breaker", "discovery", "fs", "http", "indexing_pressure", "indices", "ingest", "jvm", "os", "process", "script",
    "thread_pool", "transport",
)  # fmt: skip
_NODE_FILTER = (
    "_nodes", "nodes", "-nodes.*.http.clients", "-nodes.*.http.routes", "-nodes.*.transport.actions",
    "-nodes.*.transport.inbound_handling_time_histogram", "-nodes.*.transport.outbound_handling_time_histogram",
    "-nodes.*.ingest.pipelines.*.processors", "-nodes.*.script.contexts", "-nodes.*.discovery.cluster_applier_stats",
    "-nodes.*.indices.dense_vector.off_heap",
)  # fmt: skip
_CLUSTER_FILTER = (
    "timestamp", "indices", "nodes", "-indices.analysis", "-indices.mappings.field_types", "-indices.search",
    "-indices.mappings.runtime_field_types", "-indices.versions", "-nodes.plugins", "-nodes.versions",
    "-nodes.packaging_types", "-nodes.os.names", "-nodes.os.pretty_names", "-nodes.jvm.versions",
)  # fmt: skip
_SHARD = "index,shard,prirep,state,unassigned.reason,unassigned.at,unassigned.details"


class ElasticsearchClient:
    """One cluster, 8 or 9. Connects when first used; safe to share between threads.

    Every method raises `Unreachable`, `Timeout`, `AuthError`, `ParseError` or `Refused`; `NotThere`, a `Refused`, when
    what was named does not exist. Serverless refuses most of what is read about nodes and shards.
    """

    def __init__(self, target: ElasticsearchTarget) -> None:
        self.target = target
        self.session = Session(target)

    def close(self) -> None:
        """Let go of connections; the next use opens new ones, and asks for the version anew."""
        self.session.close()

    def get_root(self, fresh: bool = False) -> model.Root:
        """Name and version of the cluster; as they were when it was first asked, unless `fresh`."""
        return self.session.root(fresh)

    def get_health(self) -> Json:
        """`_cluster/health`: status, and counts of nodes, shards and pending tasks."""
        return self.session.ask(lambda es: es.cluster.health(level="cluster"), Json)

    def get_health_report(self) -> model.HealthReport:
        """`_health_report`, 8.7 and later: each part of the cluster with what ails it and what to do."""
        kept = ["status", "indicators.*.status", "indicators.*.symptom", "indicators.*.details", "indicators.*.impacts"]
        kept += [f"indicators.*.diagnosis.{name}" for name in ("cause", "action", "help_url")]
        return self.session.ask(lambda es: es.health_report(verbose=True, filter_path=kept), model.HealthReport)

    def get_cluster_stats(self) -> Json:
        """`_cluster/stats` without its lists."""
        return self.session.ask(lambda es: es.cluster.stats(filter_path=_CLUSTER_FILTER), Json)

    def get_node_stats(self) -> Json:
        """`_nodes/stats` by id of the node, without histograms and lists of clients, routes and processors."""
        return self.session.ask(lambda es: es.nodes.stats(metric=_NODE_SECTIONS, filter_path=_NODE_FILTER), Json)

    def get_nodes(self) -> list[model.CatNode]:
        """The nodes: names, versions, and which is the master (`*`)."""
        columns = "id,name,version,jdk,master"
        return self.session.ask(lambda es: es.cat.nodes(h=columns, full_id=True, format="json"), list[model.CatNode])

    def get_indices(self, patterns: Sequence[str] = ()) -> list[model.CatIndex]:
        """Open and closed indices, backing indices of data streams among them, the biggest first.

        Args:
            patterns: default: those of the target's settings.
        """
        wanted = list(patterns or self.target.indices)
        columns = "index,status,health,uuid,pri,rep,docs.count,docs.deleted,store.size,pri.store.size"
        found = self.session.ask(
            lambda es: es.cat.indices(
                index=wanted, h=columns, bytes="b", format="json", expand_wildcards=["open", "closed", "hidden"]
            ),
            list[model.CatIndex],
        )
        return sorted(found, key=lambda one: (-one.bytes, one.index))

    def get_all_stats(self) -> Json:
        """Sums over the indices of the target's settings: `{"primaries": {...}, "total": {...}}`."""
        patterns = list(self.target.indices)
        answer = self.session.ask(
            lambda es: es.indices.stats(
                index=patterns, level="cluster", expand_wildcards=["open", "hidden"], filter_path=["_all"]
            ),
            dict[str, Json],
        )
        return answer.get("_all", {})

    def get_index_stats(self, names: Sequence[str]) -> Iterator[tuple[str, Json]]:
        """The statistics of each of these indices, as above. Those that are gone meanwhile are left out."""
        for part in _in_lines(names):
            yield from self._stats_of(part).items()

    def get_tasks(self, actions: str | None = None) -> tuple[model.Task, ...]:
        """What the nodes do just now; `actions` is a pattern."""
        fields = ("action", "running_time_in_nanos", "node", "id", "type", "description", "parent_task_id")
        kept = [f"tasks.{name}" for name in (*fields, "cancellable")]
        answer = self.session.ask(
            lambda es: es.tasks.list(actions=actions, detailed=True, group_by="none", filter_path=kept), model.Tasks
        )
        return answer.tasks

    def get_ilm_mode(self) -> str:
        """Whether index lifecycle management is `RUNNING`, `STOPPING` or `STOPPED`."""
        return self.session.ask(lambda es: es.ilm.get_status(), model.OperationMode).operation_mode

    def get_ilm_errors(self) -> list[model.IlmIndex]:
        """Indices whose lifecycle stands in the step ERROR."""
        fields = ("index", "managed", "policy", "phase", "action", "step", "failed_step", "failed_step_retry_count")
        kept = [f"indices.*.{name}" for name in (*fields, "step_info")]
        answer = self.session.ask(
            lambda es: es.ilm.explain_lifecycle(index="*", only_errors=True, filter_path=kept), model.IlmExplain
        )
        return [one for one in answer.indices.values() if one.step == "ERROR"]

    def get_lifecycle_stats(self) -> model.LifecycleStats:
        """How the data stream lifecycle does, 8.12 and later."""
        return self.session.ask(lambda es: es.indices.get_data_lifecycle_stats(), model.LifecycleStats)

    def get_lifecycle_errors(self, stream: str) -> list[model.LifecycleIndex]:
        """Backing indices of a data stream whose lifecycle fails, with why."""
        kept = ["indices.*.index", "indices.*.error"]
        answer = self.session.ask(
            lambda es: es.indices.explain_data_lifecycle(index=stream, filter_path=kept), model.LifecycleExplain
        )
        return [one for one in answer.indices.values() if one.error]

    def get_repositories(self) -> dict[str, model.Repository]:
        """Where snapshots are kept, by name."""
        return self.session.ask(
            lambda es: es.snapshot.get_repository(filter_path=["*.type"]), dict[str, model.Repository]
        )

    def get_snapshots(self, repository: str) -> model.Snapshots:
        """The newest snapshots of a repository, the newest first."""
        fields = ("snapshot", "state", "start_time_in_millis", "end_time_in_millis", "duration_in_millis", "reason")
        kept = [f"snapshots.{name}" for name in (*fields, "shards.total", "shards.failed")] + ["total"]
        return self.session.ask(
            lambda es: es.snapshot.get(
                repository=repository,
                snapshot="*",
                sort="start_time",
                order="desc",
                size=_SNAPSHOTS,
                index_names=False,
                ignore_unavailable=True,
                filter_path=kept,
            ),
            model.Snapshots,
        )

    def get_slm_stats(self) -> Json:
        """How often snapshots were taken and deleted by policies."""
        return self.session.ask(lambda es: es.slm.get_stats(filter_path=["*", "-policy_stats"]), Json)

    def get_shards(self) -> list[model.CatShard]:
        """Every copy of every shard; those without a node first."""
        return self.session.ask(
            lambda es: es.cat.shards(h=_SHARD, s="state:desc,index", format="json"), list[model.CatShard]
        )

    def explain_shard(self, shard: model.CatShard) -> str:
        """Why a shard has no node, in the cluster's own words."""
        answer = self.session.ask(
            lambda es: es.cluster.allocation_explain(
                index=shard.index,
                shard=int(shard.shard),
                primary=shard.prirep == "p",
                filter_path=["can_allocate", "allocate_explanation"],
            ),
            dict[str, str],
        )
        return answer.get("allocate_explanation", "")

    def search(
        self,
        index: str,
        query: Mapping[str, Any] | None = None,
        *,
        limit: int = 1000,
        sort: Sequence[Mapping[str, Any]] = (),
        source: bool | Sequence[str] = True,
    ) -> Iterator[model.Hit]:
        """Documents that match, page by page, from one unchanging view of the indices.

        Args:
            index: names and patterns, separated by commas.
            query: in the query language of Elasticsearch; None: all documents.
            limit: the most documents that come, 1 to 100000.
            sort: `[{"@timestamp": "desc"}]`; default: as the shards hold them, which is the quickest.
            source: which fields come; False: none.
        """
        return search.hits(self.session, index, query, limit=limit, sort=sort, source=source)

    def bulk(self, operations: Iterable[bulk.Operation]) -> bulk.Result:
        """Write many documents; see `bulk.write`."""
        return bulk.write(self.session, self.target, operations)

    def get_index(self, index: str) -> model.IndexBody | None:
        """An index as it is configured; None: there is none of this name.

        Raises:
            Refused: the name is an alias or a data stream.
        """
        found = self.session.ask(
            lambda es: es.indices.get(index=index, flat_settings=True, ignore_unavailable=True, expand_wildcards="all"),
            dict[str, model.IndexBody],
        )
        if not found or index in found:
            return found.get(index)
        hint = f"it stands for {', '.join(sorted(found)[:5])}: name one of these"
        raise Refused(f"{index} is no index but an alias or a data stream", hint=hint)

    def create_index(self, index: str, mappings: Json | None = None, settings: Json | None = None) -> None:
        """Make an index. It is an error when there is one of this name."""
        self.session.ask(lambda es: es.indices.create(index=index, mappings=mappings, settings=settings), Json)

    def delete_index(self, index: str) -> None:
        """Delete an index with its documents."""
        self.session.ask(lambda es: es.indices.delete(index=index, expand_wildcards="none"), Json)

    def refresh(self, index: str) -> None:
        """Make what was written visible to searches and counts."""
        self.session.ask(lambda es: es.indices.refresh(index=index), Json)

    def most_segments(self, index: str) -> int:
        """Segments of that copy of a shard of an index that has the most."""
        kept = ["indices.*.shards.*.num_search_segments"]
        found = self.session.ask(lambda es: es.indices.segments(index=index, filter_path=kept), model.Segments)
        shards = (copy for one in found.indices.values() for copies in one.shards.values() for copy in copies)
        return max((copy.num_search_segments for copy in shards), default=0)

    def start_force_merge(self, index: str, segments: int) -> str:
        """Have each shard of an index merged into at most so many segments; gives the task that does it."""
        return self.session.ask(
            lambda es: es.indices.forcemerge(index=index, max_num_segments=segments, wait_for_completion=False),
            model.StartedTask,
        ).task

    def get_task(self, task: str) -> model.FollowedTask | None:
        """How a task does; None: the cluster does not know it any more."""
        kept = ["completed", "error", "response._shards"]
        try:
            return self.session.ask(lambda es: es.tasks.get(task_id=task, filter_path=kept), model.FollowedTask)
        except NotThere:
            return None

    def get_data_stream(self, name: str) -> model.DataStream | None:
        """A data stream by its name; None: there is none."""
        try:
            found = self.session.ask(
                lambda es: es.indices.get_data_stream(name=name, expand_wildcards="all"), model.DataStreams
            )
        except NotThere:
            return None
        return next((one for one in found.data_streams if one.name == name), None)

    def get_policy(self, name: str) -> model.Policy:
        """A policy of index lifecycle management."""
        found = self.session.ask(lambda es: es.ilm.get_lifecycle(name=name), dict[str, model.Policy])
        if name not in found:
            raise Refused(f"there is no policy {name}", hint="the index or data stream names one that is gone")
        return found[name]

    def put_policy(self, name: str, phases: Json, meta: Json | None) -> None:
        """Replace a policy of index lifecycle management."""
        body = {"phases": phases} | ({"_meta": meta} if meta is not None else {})
        self.session.ask(lambda es: es.ilm.put_lifecycle(name=name, policy=body), Json)

    def put_lifecycle(self, stream: str, lifecycle: Json | None) -> None:
        """Replace the lifecycle of a data stream; None takes it away."""
        if lifecycle is None:
            self.session.ask(lambda es: es.indices.delete_data_lifecycle(name=stream), Json)
        else:
            self.session.ask(lambda es: es.indices.put_data_lifecycle(name=stream, body=lifecycle), Json)

    def count(self, index: str) -> int:
        """How many documents an index holds."""
        return self.session.ask(lambda es: es.count(index=index, filter_path=["count"]), model.Count).count

    def _stats_of(self, names: Sequence[str]) -> dict[str, Json]:
        kept = ["indices.*.primaries", "indices.*.total"]
        try:
            answer = self.session.ask(
                lambda es: es.indices.stats(
                    index=names, level="indices", forbid_closed_indices=False, expand_wildcards="none", filter_path=kept
                ),
                dict[str, dict[str, Json]],
            )
        except NotThere:  # one of them is gone, and the cluster does not take it lightly
            half = len(names) // 2
            return self._stats_of(names[:half]) | self._stats_of(names[half:]) if half else {}
        return answer.get("indices", {})


def _in_lines(names: Sequence[str]) -> Iterator[list[str]]:
    """The names in parts that fit into a request line."""
    part: list[str] = []
    size = 0
    for name in names:
        length = len(quote(name, safe="")) + 3
        if part and size + length > _NAMES_BYTES:
            yield part
            part, size = [], 0
        part.append(name)
        size += length
    if part:
        yield part
