"""What a container says of itself by labels: `nms.service=true`, `nms.service.name`, `.type`, `.port`, `.target.*`."""

from collections.abc import Mapping

from nms_workers.services.docker.model import LABEL, Container, FoundService

# Others may hold anything, passwords too: those of proxies often do.
_SHOWN = ("nms.", "com.docker.compose.", "com.docker.swarm.", "org.opencontainers.image.")
_MOST = 100

_TARGET = f"{LABEL}.target."


def is_service(container: Container) -> bool:
    """Whether it is marked as one of ours: only such are acted on."""
    return container.labels.get(LABEL) == "true"


def shown(labels: Mapping[str, str] | None) -> dict[str, str]:
    """The labels that are told: those whose meaning is known."""
    known = {key: value[:300] for key, value in (labels or {}).items() if key.startswith(_SHOWN)}
    return dict(sorted(known.items())[:_MOST])


def service_of(container: Container) -> FoundService:
    """What it offers."""
    labels = container.labels
    port = labels.get(f"{LABEL}.port", "")
    addresses = {name: one.ip_address for name, one in container.networks.items() if one.ip_address}
    settings = {key.removeprefix(_TARGET): value for key, value in labels.items() if key.startswith(_TARGET)}
    return FoundService(
        container_id=container.id,
        container=container.name,
        name=labels.get(f"{LABEL}.name") or container.name,
        type=labels.get(f"{LABEL}.type", ""),
        port=int(port) if port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536 else None,
        addresses=addresses,
        settings=settings,
    )
