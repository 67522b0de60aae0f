"""A cluster as Elasticsearch 8 or 9 answers for it: indices with documents, data streams, policies, snapshots, tasks.

It keeps state, refuses the media types of the other version, filters by `filter_path`, and says what is not so as the
real one does. Every request and its whole answer are checked against the vendor's description, without the body of
`_bulk`, which is not described. Big answers lie as JSON in `elasticsearch_answers/`: values made up, for the fields our
tables read and others; whether the fields are the vendor's own is for `test_contract` to say.
"""

import copy
import fnmatch
import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

from werkzeug.wrappers import Request, Response

from tests.contract.vendor import Contract
from tests.stubs.filter_path import filtered
from tests.stubs.stub import Stub, as_response, route

Json = dict[str, Any]

_COMPATIBLE = re.compile(r"application/vnd\.elasticsearch\+(json|x-ndjson); ?compatible-with=([0-9]+)\Z")
_ANSWERS = Path(__file__).parent / "elasticsearch_answers"
NODES = {"nXaaaaaaaaaaaaaaaaaaaa": "es-1", "nXbbbbbbbbbbbbbbbbbbbb": "es-2"}


def answer(name: str) -> Any:
    """One of the big answers, a copy of its own."""
    return json.loads((_ANSWERS / f"{name}.json").read_text(encoding="utf-8"))


class ElasticsearchStub(Stub):
    """One cluster of two nodes.

    Args:
        version: of Elasticsearch; decides which media types are taken.
        flavor: `serverless` has no APIs of nodes and shards.
        secret: what `Authorization` must be; None takes everybody.
    """

    unchecked: ClassVar[Mapping[str, str]] = {"/_bulk": "its body is not described"}

    def __init__(
        self,
        version: str = "8.17.0",
        contract: Contract | None = None,
        flavor: str = "default",
        secret: str | None = None,
    ) -> None:
        self.version, self.flavor, self.secret = version, flavor, secret
        # Serverless says 8.11.0 for ever, and is newer than any version
        self.major = 9 if flavor == "serverless" else int(version.partition(".")[0])
        self.indices: dict[str, Json] = {}
        self.streams: dict[str, Json] = {}
        self.policies: dict[str, Json] = {}
        self.global_retention: str | None = None
        self.repositories: dict[str, Json] = {}
        self.tasks: list[Json] = []
        self.following: dict[str, list[Json]] = {}  # answers to come for a task, the last one for ever
        self.ilm_errors: dict[str, Json] = {}
        self.lifecycle_errors: dict[str, str] = {}
        self.indicators: dict[str, Json] = {}
        self.unassigned: list[Json] = []
        self.health: Json = {}
        self.node: Json = answer("node_stats")
        self.reject: dict[str, int] = {}  # id of a document to how often it is refused for load
        self.too_many = 0  # bulk requests that are refused as a whole
        self.templates: dict[str, Json] = {}
        self.trouble: dict[str, list[int]] = {}  # word of a message to statuses with which it is refused, one a time
        self.largest = 100_000_000  # bytes of a bulk request
        self.views: dict[str, list[tuple[str, str, Json]]] = {}
        self._ids = itertools.count(1)
        super().__init__(contract)

    def make_index(self, name: str, docs: int = 0, **more: Any) -> Json:
        """An index, as if somebody else had made it."""
        number = next(self._ids)
        made = {
            "settings": {"index.uuid": f"uuid-{number:016}", "index.number_of_shards": "1"},
            "mappings": {},
            "aliases": {},
            "docs": {str(at): {"n": at} for at in range(docs)},
            "segments": 7,
            "bytes": 1000 * docs + 200,
            "health": "green",
            "status": "open",
        } | more
        made["settings"] |= {"index.number_of_replicas": "1", "index.provided_name": name}
        self.indices[name] = made
        return made

    def make_stream(self, name: str, **more: Any) -> Json:
        """A data stream with one backing index."""
        backing = f".ds-{name}-2026.11.22-000001"
        self.make_index(backing, data_stream=name)
        self.streams[name] = {
            "name": name,
            "timestamp_field": {"name": "@timestamp"},
            "indices": [{"index_name": backing, "index_uuid": self.indices[backing]["settings"]["index.uuid"]}],
            "generation": 1,
            "hidden": False,
            "system": False,
            "replicated": False,
            "rollover_on_write": False,
            "allow_custom_routing": False,
            "status": "GREEN",
            "template": f"{name}-template",
            "prefer_ilm": True,
            "next_generation_managed_by": "Unmanaged",
        } | more
        return self.streams[name]

    def refuse(self, request: Request) -> Any:
        if self.secret is not None and request.headers.get("Authorization") != self.secret:
            return _error(401, "security_exception", f"missing authentication credentials for [{request.path}]")
        if self.flavor == "serverless" and re.match(
            r"/_(cluster|nodes|tasks|cat/(nodes|shards)|ilm|snapshot|slm)", request.path
        ):
            reason = f"Request for uri [{request.path}] with method [{request.method}] exists but is not available"
            return _error(410, "api_not_available_exception", f"{reason} when running in serverless mode")
        return self._wrong_version(request)

    def _wrong_version(self, request: Request) -> Any:
        for name in ("Accept", "Content-Type"):
            asked = _COMPATIBLE.match(request.headers.get(name, ""))
            if asked and int(asked[2]) not in (self.major, self.major - 1):
                reason = f"A compatible version is required on both Content-Type and Accept headers. {name}={asked[0]}"
                return _error(400, "media_type_header_exception", reason)
        return None

    def _route(self, request: Request) -> Response:
        response = super()._route(request)
        whole = response.get_data()
        if response.status_code < 300 and (wanted := request.args.get("filter_path")) and whole:
            kept = filtered(json.loads(whole), wanted.split(","))
            response = as_response(kept if kept is not None else {})
        response.whole = whole  # type: ignore[attr-defined] - what the vendor describes
        if _COMPATIBLE.match(request.headers.get("Accept", "")):
            response.content_type = f"application/vnd.elasticsearch+json;compatible-with={self.major}"
        response.headers["X-Elastic-Product"] = "Elasticsearch"
        response.headers["Warning"] = '299 Elasticsearch-8.17.0 "this is deprecated"'
        return response

    # ------------------------------------------------------------------ the cluster

    @route("/")
    def root(self, _: Request) -> Any:
        return {
            "name": "es-1",
            "cluster_name": "logs",
            "cluster_uuid": "cLuStErUuId0000000000",
            "version": {
                "number": self.version,
                "build_flavor": self.flavor,
                "build_type": "docker",
                "build_hash": "0123456789abcdef",
                "build_date": "2026-01-01T00:00:00Z",
                "build_snapshot": False,
                "lucene_version": "9.12.0",
                "minimum_wire_compatibility_version": "7.17.0",
                "minimum_index_compatibility_version": "7.0.0",
            },
            "tagline": "You Know, for Search",
        }

    @route("/_cluster/health")
    def cluster_health(self, _: Request) -> Any:
        away = len(self.unassigned)
        primary = sum(one["prirep"] == "p" for one in self.unassigned)
        return {
            "cluster_name": "logs",
            "status": "red" if primary else "yellow" if away else "green",
            "timed_out": False,
            "number_of_nodes": 2,
            "number_of_data_nodes": 2,
            "active_primary_shards": 11,
            "active_shards": 22,
            "relocating_shards": 0,
            "initializing_shards": 0,
            "unassigned_shards": away,
            "unassigned_primary_shards": primary,
            "delayed_unassigned_shards": 0,
            "number_of_pending_tasks": 1,
            "number_of_in_flight_fetch": 0,
            "task_max_waiting_in_queue_millis": 1500,
            "active_shards_percent_as_number": 87.5,
        } | self.health

    @route("/_health_report")
    def health_report(self, _: Request) -> Any:
        details = answer("health_details")
        status = {"status": "green", "symptom": "All is well."}
        indicators = {name: status | {"details": told} for name, told in details.items()}
        indicators["ilm"]["details"] |= {"ilm_status": "RUNNING"}
        indicators["slm"]["details"] |= {"slm_status": "RUNNING"}
        for name, told in self.indicators.items():
            indicators[name] = indicators.get(name, {}) | told
        return {"status": "green", "cluster_name": "logs", "indicators": indicators}

    @route("/_cluster/stats")
    def cluster_stats(self, _: Request) -> Any:
        nodes = {"total": 2, "successful": 2, "failed": 0}
        head = {"_nodes": nodes, "cluster_name": "logs", "cluster_uuid": "cLuStErUuId0000000000", "status": "green"}
        return head | answer("cluster_stats")

    @route("/_nodes/stats/<metric>")
    def node_stats(self, _: Request, metric: str) -> Any:
        wanted = {"breaker": "breakers"}
        kept = {wanted.get(one, one) for one in metric.split(",")}
        told = {name: one for name, one in self.node.items() if name in kept or not isinstance(one, dict)}
        nodes = {}
        for key, name in NODES.items():
            about = {"name": name, "host": "127.0.0.1", "ip": "127.0.0.1:9300", "transport_address": "127.0.0.1:9300"}
            nodes[key] = about | {"roles": ["data", "master"], "attributes": {"rack": "r1"}} | copy.deepcopy(told)
        return {"_nodes": {"total": 2, "successful": 2, "failed": 0}, "cluster_name": "logs", "nodes": nodes}

    @route("/_cat/nodes")
    def cat_nodes(self, request: Request) -> Any:
        columns = request.args["h"].split(",")
        every = [
            {"id": key, "name": name, "version": self.version, "jdk": "23", "master": "*" if name == "es-1" else "-"}
            for key, name in NODES.items()
        ]
        return [{column: one[column] for column in columns} for one in every]

    @route("/_tasks")
    def list_tasks(self, request: Request) -> Any:
        pattern = request.args.get("actions", "*")
        return {"tasks": [one for one in self.tasks if fnmatch.fnmatch(one["action"], pattern)]}

    @route("/_tasks/<task>")
    def one_task(self, _: Request, task: str) -> Any:
        coming = self.following.get(task)
        if not coming:
            return _error(
                404, "resource_not_found_exception", f"task [{task}] isn't running and hasn't stored its results"
            )
        told = coming.pop(0) if len(coming) > 1 else coming[0]
        if told["completed"]:
            self.tasks = [one for one in self.tasks if f"{one['node']}:{one['id']}" != task]
            for index in told.get("merges", ()):
                self.indices[index]["segments"] = told["segments"]
        node, number = task.split(":")
        about = task_info(node, int(number), "indices:admin/forcemerge", 10, "")
        return {"task": about} | {name: one for name, one in told.items() if name not in ("merges", "segments")}

    # ------------------------------------------------------------------ indices

    @route("/_cat/indices/<patterns>")
    def cat_indices(self, request: Request, patterns: str) -> Any:
        columns = request.args["h"].split(",")
        lines = []
        for name in self._named(patterns):
            one = self.indices[name]
            dark = one["health"] == "red" or one["status"] == "close"
            line = {
                "index": name,
                "health": one["health"],
                "status": one["status"],
                "uuid": one["settings"]["index.uuid"],
                "pri": one["settings"]["index.number_of_shards"],
                "rep": one["settings"]["index.number_of_replicas"],
                "docs.count": None if dark else str(len(one["docs"])),
                "docs.deleted": None if dark else "0",
                "store.size": None if dark else str(one["bytes"]),
                "pri.store.size": None if dark else str(one["bytes"] // 2),
            }
            lines.append({column: line[column] for column in columns})
        return lines

    @route("/<patterns>/_stats")
    def index_stats(self, request: Request, patterns: str) -> Any:
        names = self._named(patterns)
        if isinstance(names, Response):
            return names
        whole = answer("index_stats")
        each = {name: {"uuid": self.indices[name]["settings"]["index.uuid"], **whole} for name in names}
        shards = {"total": 2, "successful": 2, "failed": 0}
        told = {"_shards": shards, "_all": whole}
        return told | ({"indices": each} if request.args.get("level") == "indices" else {})

    @route("/<patterns>")
    def get_index(self, request: Request, patterns: str) -> Any:
        found = {}
        for name in (unquote(one) for one in patterns.split(",")):
            behind = [one for one, told in self.indices.items() if name in told["aliases"]]
            behind += [one["index_name"] for one in self.streams.get(name, {}).get("indices", ())]
            for one in [name] if name in self.indices else behind:
                found[one] = {key: self.indices[one][key] for key in ("aliases", "mappings", "settings")}
                if "data_stream" in self.indices[one]:
                    found[one]["data_stream"] = self.indices[one]["data_stream"]
        if not found and request.args.get("ignore_unavailable") != "true":
            return _no_index(patterns)
        return found

    @route("/<index>", "PUT")
    def put_index(self, request: Request, index: str) -> Any:
        if index in self.indices:
            return _error(400, "resource_already_exists_exception", f"index [{index}] already exists", index=index)
        body = request.get_json(silent=True) or {}
        mappings = body.get("mappings", {})
        for name, field in mappings.get("properties", {}).items():
            if field.get("type") == "no_such_type":
                reason = f"Failed to parse mapping: No handler for type [no_such_type] declared on field [{name}]"
                return _error(400, "mapper_parsing_exception", reason)
        settings = {
            name if name.startswith("index.") else f"index.{name}": _as_text(value)
            for name, value in body.get("settings", {}).items()
        }
        made = self.make_index(index, mappings=mappings)
        made["settings"] |= settings
        return {"acknowledged": True, "shards_acknowledged": True, "index": index}

    @route("/<index>", "DELETE")
    def delete_index(self, _: Request, index: str) -> Any:
        if index not in self.indices:
            return _no_index(index)
        del self.indices[index]
        return {"acknowledged": True}

    @route("/<index>/_refresh", "POST")
    def refresh(self, _: Request, index: str) -> Any:
        there = index in self.indices or index in self.streams
        return {"_shards": {"total": 2, "successful": 2, "failed": 0}} if there else _no_index(index)

    @route("/<index>/_count", "GET", "POST")
    def count(self, _: Request, index: str) -> Any:
        shards = {"total": 1, "successful": 1, "skipped": 0, "failed": 0}
        return {"count": len(self.indices[index]["docs"]), "_shards": shards}

    @route("/<index>/_segments")
    def segments(self, _: Request, index: str) -> Any:
        routing = {"state": "STARTED", "primary": True, "node": next(iter(NODES))}
        number = self.indices[index]["segments"]
        copies = [{"routing": routing, "num_committed_segments": number, "num_search_segments": number, "segments": {}}]
        shards = {"total": 1, "successful": 1, "failed": 0}
        return {"_shards": shards, "indices": {index: {"shards": {"0": copies}}}}

    @route("/<index>/_forcemerge", "POST")
    def force_merge(self, request: Request, index: str) -> Any:
        assert request.args["wait_for_completion"] == "false"
        node, number = next(iter(NODES)), next(self._ids)
        most = request.args["max_num_segments"]
        what = f"Force-merge indices [{index}], maxSegments[{most}], onlyExpungeDeletes[false], flush[true]"
        self.tasks.append(task_info(node, number, "indices:admin/forcemerge", 1, what))
        response = {"_shards": {"total": 2, "successful": 2, "failed": 0}}
        done = {"completed": True, "response": response, "merges": [index], "segments": int(most)}
        self.following.setdefault(f"{node}:{number}", [{"completed": False}, done])
        return {"task": f"{node}:{number}"}

    def _named(self, patterns: str) -> Any:
        """The indices of these patterns; an answer when a plain name is not there."""
        chosen: list[str] = []
        for pattern in patterns.split(","):
            if pattern.startswith("-"):
                chosen = [one for one in chosen if not fnmatch.fnmatch(one, pattern[1:])]
            elif "*" in pattern:
                chosen += [one for one in self.indices if fnmatch.fnmatch(one, pattern) and one not in chosen]
            elif pattern in self.indices:
                chosen.append(pattern)
            else:
                return _no_index(pattern)
        return chosen

    # ------------------------------------------------------------------ documents

    @route("/_bulk", "PUT", "POST")
    def bulk(self, request: Request) -> Any:
        if self.too_many:
            self.too_many -= 1
            return _error(429, "es_rejected_execution_exception", "rejected execution of coordinating operation")
        if len(request.get_data()) > self.largest:
            return _error(413, "content_too_long_exception", f"entity content is too long for [{self.largest}]")
        lines = [json.loads(line) for line in request.get_data().splitlines()]
        items = []
        while lines:
            ((op, about),) = lines.pop(0).items()
            document = None if op == "delete" else lines.pop(0)
            items.append({op: self._item(op, about, document)})
        return {"took": 3, "errors": any("error" in one for item in items for one in item.values()), "items": items}

    def _item(self, op: str, about: Json, document: Json | None) -> Json:
        name = about["_index"]
        key = about.get("_id") or f"made-{next(self._ids)}"
        told = {"_index": name, "_id": key}
        if self.reject.get(key, 0):
            self.reject[key] -= 1
            error = {"type": "es_rejected_execution_exception", "reason": "rejected execution of primary operation"}
            return told | {"status": 429, "error": error}
        if refusal := self._troubled(document):
            return told | refusal
        if name not in self.streams and name not in self.indices and name in self.templates:
            policy = self.templates[name]["template"]["settings"].get("index.lifecycle.name", "")
            self.make_stream(name, template=name, ilm_policy=policy)
        return self._write(op, told, document)

    def _write(self, op: str, told: Json, document: Json | None) -> Json:
        name, key = told["_index"], told["_id"]
        if name in self.streams:
            if op != "create":
                reason = "only write ops with an op_type of create are allowed in data streams"
                return told | {"status": 400, "error": {"type": "illegal_argument_exception", "reason": reason}}
            name = told["_index"] = self.streams[name]["indices"][-1]["index_name"]
        docs = self.indices.get(name, {}).get("docs") if op != "create" else self._docs(name)
        if docs is None:
            docs = self._docs(name)
        if op == "create" and key in docs:
            reason = f"[{key}]: version conflict, document already exists (current version [1])"
            return told | {"status": 409, "error": {"type": "version_conflict_engine_exception", "reason": reason}}
        if document is not None and document.get("n") == "no number":
            reason = "failed to parse field [n] of type [long]"
            return told | {"status": 400, "error": {"type": "document_parsing_exception", "reason": reason}}
        if op in ("update", "delete") and key not in docs:
            reason = f"[{key}]: document missing"
            return told | {"status": 404, "error": {"type": "document_missing_exception", "reason": reason}}
        if op == "delete":
            del docs[key]
        else:
            docs[key] = document["doc"] if op == "update" and document else document
        return told | {"status": 200 if op in ("update", "delete") else 201, "result": f"{op}d"}

    def _troubled(self, document: Json | None) -> Json | None:
        message = str((document or {}).get("message", ""))
        status = next((told.pop(0) for word, told in self.trouble.items() if word in message and told), 0)
        kinds = {400: "document_parsing_exception", 403: "security_exception", 429: "es_rejected_execution_exception"}
        error = {"type": kinds.get(status, "unavailable_shards_exception"), "reason": "this document is in trouble"}
        return {"status": status, "error": error} if status else None

    def _docs(self, name: str) -> Json:
        found = self.indices.get(name) or self.make_index(name)
        return dict.__getitem__(found, "docs")

    @route("/<patterns>/_pit", "POST")
    def open_view(self, _: Request, patterns: str) -> Any:
        names = self._named(patterns)
        if isinstance(names, Response):
            return names
        key = f"view-{next(self._ids)}"
        self.views[key] = [(name, at, doc) for name in names for at, doc in self.indices[name]["docs"].items()]
        return {"id": key, "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0}}

    @route("/_pit", "DELETE")
    def close_view(self, request: Request) -> Any:
        found = self.views.pop(request.get_json()["id"], None)
        return {"succeeded": found is not None, "num_freed": int(found is not None)}

    @route("/_search", "POST")
    def search(self, request: Request) -> Any:
        body = request.get_json()
        view = self.views[body["pit"]["id"]]
        ((kind, wanted),) = body["query"].items()
        assert kind in ("match_all", "term")
        rows = [one for one in view if all(one[2].get(name) == told["value"] for name, told in wanted.items())]
        start = body["search_after"][0] + 1 if body.get("search_after") else 0
        hits = [
            {"_index": name, "_id": key, "_score": None, "_source": doc, "sort": [start + at]}
            for at, (name, key, doc) in enumerate(rows[start : start + body["size"]])
        ]
        return {
            "took": 2,
            "timed_out": False,
            "pit_id": body["pit"]["id"],
            "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0},
            "hits": {"max_score": None, "hits": hits},
        }

    @route("/<stream>/_search", "POST")
    def search_ids(self, request: Request, stream: str) -> Any:
        """Which of these ids a data stream has, in any of its indices."""
        wanted = request.get_json()["query"]["ids"]["values"]
        behind = [one["index_name"] for one in self.streams[stream]["indices"]]
        hits = [
            {"_index": name, "_id": key, "_score": 1.0} for key in wanted for name in behind if key in self._docs(name)
        ]
        return {
            "took": 1,
            "timed_out": False,
            "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0},
            "hits": {"max_score": 1.0, "hits": hits[: int(request.get_json().get("size", 10))]},
        }

    @route("/_index_template/<name>")
    def get_template(self, _: Request, name: str) -> Any:
        if name not in self.templates:
            return _error(404, "resource_not_found_exception", f"index template matching [{name}] not found")
        return {"index_templates": [{"name": name, "index_template": {"composed_of": [], **self.templates[name]}}]}

    @route("/_index_template/<name>", "PUT")
    def put_template(self, request: Request, name: str) -> Any:
        self.templates[name] = request.get_json()
        return {"acknowledged": True}

    def roll_over(self, stream: str) -> None:
        """A new index for what is written from now on."""
        told = self.streams[stream]
        told["generation"] += 1
        name = f".ds-{stream}-2026.11.22-{told['generation']:06}"
        made = self.make_index(name, data_stream=stream)
        told["indices"].append({"index_name": name, "index_uuid": made["settings"]["index.uuid"]})

    def documents(self, stream: str) -> list[tuple[str, Json]]:
        """Id and document of all that a data stream holds, in the order in which it came."""
        with self._lock:
            behind = [one["index_name"] for one in self.streams.get(stream, {}).get("indices", ())]
            return [each for name in behind for each in self._docs(name).items()]

    # ------------------------------------------------------------------ lifecycles, snapshots, shards

    @route("/_ilm/status")
    def ilm_status(self, _: Request) -> Any:
        return {"operation_mode": "RUNNING"}

    @route("/<index>/_ilm/explain")
    def ilm_explain(self, _: Request, index: str) -> Any:
        assert index == "*"
        return {"indices": self.ilm_errors}

    @route("/_lifecycle/stats")
    def lifecycle_stats(self, _: Request) -> Any:
        streams = [
            {
                "name": name,
                "backing_indices_in_total": len(one["indices"]),
                "backing_indices_in_error": sum(each["index_name"] in self.lifecycle_errors for each in one["indices"]),
            }
            for name, one in self.streams.items()
            if one.get("lifecycle")
        ]
        runs = {"last_run_duration_in_millis": 250, "time_between_starts_in_millis": 300_000}
        return {"data_stream_count": len(streams), "data_streams": streams} | runs

    @route("/<stream>/_lifecycle/explain")
    def lifecycle_explain(self, _: Request, stream: str) -> Any:
        names = [one["index_name"] for one in self.streams[stream]["indices"]]
        return {
            "indices": {
                name: {"index": name, "managed_by_lifecycle": True}
                | ({"error": self.lifecycle_errors[name]} if name in self.lifecycle_errors else {})
                for name in names
            }
        }

    @route("/_data_stream/<name>")
    def data_stream(self, _: Request, name: str) -> Any:
        if name not in self.streams:
            return _no_index(name)
        return {"data_streams": [self.streams[name]]}

    @route("/_data_stream/<name>/_lifecycle", "PUT")
    def put_lifecycle(self, request: Request, name: str) -> Any:
        self.streams[name]["lifecycle"] = {"enabled": True} | request.get_json()
        if self.global_retention:
            self.streams[name]["lifecycle"]["effective_retention"] = self.global_retention
        self.streams[name]["next_generation_managed_by"] = "Data stream lifecycle"
        return {"acknowledged": True}

    @route("/_data_stream/<name>/_lifecycle", "DELETE")
    def delete_lifecycle(self, _: Request, name: str) -> Any:
        self.streams[name].pop("lifecycle", None)
        self.streams[name]["next_generation_managed_by"] = "Unmanaged"
        return {"acknowledged": True}

    @route("/_ilm/policy/<name>")
    def get_policy(self, _: Request, name: str) -> Any:
        if name not in self.policies:
            return _error(404, "resource_not_found_exception", f"Lifecycle policy not found: {name}")
        return {name: self.policies[name]}

    @route("/_ilm/policy/<name>", "PUT")
    def put_policy(self, request: Request, name: str) -> Any:
        old = self.policies.get(name) or lifecycle_policy({}, 0)
        self.policies[name] = old | {"version": old["version"] + 1, "policy": request.get_json()["policy"]}
        return {"acknowledged": True}

    @route("/_snapshot")
    def get_repositories(self, _: Request) -> Any:
        return {name: {"type": "fs", "settings": {"location": f"/backup/{name}"}} for name in self.repositories}

    @route("/_snapshot/<repository>/<snapshot>")
    def get_snapshots(self, request: Request, repository: str, snapshot: str) -> Any:
        assert snapshot == "*"
        held = self.repositories[repository]
        if "broken" in held:
            return _error(500, "repository_exception", f"[{repository}] {held['broken']}")
        every = sorted(held["snapshots"], key=lambda one: -one["start_time_in_millis"])
        size = int(request.args["size"])
        return {"snapshots": every[:size], "total": len(every), "remaining": max(0, len(every) - size)}

    @route("/_slm/stats")
    def slm_stats(self, _: Request) -> Any:
        return {
            "retention_runs": 9,
            "retention_failed": 1,
            "retention_timed_out": 0,
            "retention_deletion_time": "1.4s",
            "retention_deletion_time_millis": 1404,
            "total_snapshots_taken": 30,
            "total_snapshots_failed": 2,
            "total_snapshots_deleted": 20,
            "total_snapshot_deletion_failures": 0,
            "policy_stats": [],
        }

    @route("/_cat/shards")
    def cat_shards(self, request: Request) -> Any:
        columns = request.args["h"].split(",")
        started = [
            {"index": name, "shard": "0", "prirep": kind, "state": "STARTED"} for name in self.indices for kind in "pr"
        ]
        return [{column: one.get(column) for column in columns} for one in [*self.unassigned, *started]]

    @route("/_cluster/allocation/explain", "POST")
    def explain(self, request: Request) -> Any:
        body = request.get_json()
        kind = "p" if body["primary"] else "r"
        where = (body["index"], str(body["shard"]), kind)
        if where not in [(one["index"], one["shard"], one["prirep"]) for one in self.unassigned]:
            return _error(400, "illegal_argument_exception", "unable to find any unassigned shards to explain")
        return {
            "index": body["index"],
            "shard": body["shard"],
            "primary": body["primary"],
            "current_state": "unassigned",
            "can_allocate": "no",
            "allocate_explanation": "Elasticsearch isn't allowed to allocate this shard to any of the nodes.",
        }


def lifecycle_policy(policy: Json, version: int = 1, **in_use_by: list[str]) -> Json:
    """A policy as `/_ilm/policy/<name>` answers it."""
    return {
        "version": version,
        "modified_date": "2026-01-01T00:00:00.000Z",
        "policy": policy,
        "in_use_by": {"indices": [], "data_streams": [], "composable_templates": []} | in_use_by,
    }


def task_info(node: str, number: int, action: str, seconds: float, what: str, **more: Any) -> Json:
    """A task as it is listed."""
    return {
        "node": node,
        "id": number,
        "type": "transport",
        "action": action,
        "description": what,
        "start_time_in_millis": 1_700_000_000_000,
        "running_time_in_nanos": int(seconds * 1e9),
        "cancellable": True,
        "headers": {},
    } | more


def _as_text(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool | int | float) else value


def _error(status: int, kind: str, reason: str, **more: Any) -> Any:
    cause = {"type": kind, "reason": reason} | more
    return as_response(({"error": {"root_cause": [cause], **cause}, "status": status}, status))


def _no_index(name: str) -> Any:
    return _error(404, "index_not_found_exception", f"no such index [{name}]", index=name)
