"""The shipper as the settings want it."""

import logging
from collections.abc import Callable

from nms_workers.logs.cursors import Cursors
from nms_workers.logs.deadletters import DeadLetters
from nms_workers.logs.elastic import ElasticOutlet
from nms_workers.logs.events import EventsOutlet
from nms_workers.logs.outlet import Outlet
from nms_workers.logs.shipper import Shipper, Sources
from nms_workers.queues import host_name
from nms_workers.runtime import Runtime
from nms_workers.services.docker.target import DockerTarget
from nms_workers.services.elasticsearch.client import ElasticsearchClient
from nms_workers.services.elasticsearch.target import ElasticsearchTarget
from nms_workers.settings import LogFiles, Settings

log = logging.getLogger(__name__)


def assemble(settings: Settings, here: Runtime, beat: Callable[[], None]) -> tuple[Shipper, str]:
    """The shipper, and where it ships to, for people.

    Raises:
        ConfigError: another process ships these logs already.
        CursorError: what is remembered of the last time cannot be used.
    """
    wanted = settings.logs
    folder = settings.data / "logs"
    cursors = Cursors(folder)
    outlet: Outlet
    if wanted.elasticsearch:
        target = _settings_of(settings, "elasticsearch", wanted.elasticsearch)
        client = ElasticsearchClient(ElasticsearchTarget.model_validate(target))
        letters = DeadLetters(folder / "dead-letters.jsonl", wanted.dead_letter_bytes)
        outlet = ElasticOutlet(client, wanted.retention, letters)
        where = f"Elasticsearch, target {wanted.elasticsearch}"
    else:
        outlet = EventsOutlet(here.engine, here.writer, host_name(), here.worker)
        where = "PostgreSQL, as events"
    own = (LogFiles(paths=(f"{folder.absolute()}/*.log",), service="nms-workers"),) if wanted.own else ()
    engines = {name: DockerTarget.model_validate(_settings_of(settings, "docker", name)) for name in wanted.docker}
    sources = Sources(wanted.files + own, engines, host_name())
    return Shipper(wanted, sources, cursors, outlet, beat), where


def _settings_of(settings: Settings, service: str, name: str) -> dict[str, object]:
    """What the settings say of a target; they were checked to have it."""
    return next(one.settings for one in settings.targets if (one.service, one.name) == (service, name))
