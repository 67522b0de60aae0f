"""A container made anew from another image: what stays, and the way back when the new one is not well."""

from typing import Any

import docker
import pytest

from nms_workers.errors import Refused
from nms_workers.services.docker.client import DockerClient
from nms_workers.services.docker.recreation import PREVIOUS
from tests.services.docker.support import FOREVER, act, image, inside, make

RUN = 'CMD ["sh", "-c", "trap exit TERM; while :; do sleep 1 & wait; done"]'
LOCAL = {"pull": False, "grace": 1}


def names(api: docker.APIClient) -> set[str]:
    return {one["Names"][0].lstrip("/") for one in api.containers(all=True)}


def app(api: docker.APIClient, **options: Any) -> str:
    """A container of the image app:1, which has a command and a variable of its own."""
    image(api, "app:1", RUN, "ENV VERSION=1", "LABEL built=one")
    return make(api, "app", image="app:1", command=None, **options)


def test_the_same_in_everything_but_the_image(client: DockerClient, plain: docker.APIClient) -> None:
    plain.create_network("seg", labels={"nms.service": "true"})
    host = {
        "mem_limit": "64m",
        "binds": ["data:/data"],
        "restart_policy": {"Name": "on-failure", "MaximumRetryCount": 3},
    }
    old = app(
        plain, environment={"OWN": "kept"}, host=host, volumes=["/unnamed"], labels={"nms.service": "true", "a": "b"}
    )
    plain.connect_container_to_network(old, "seg", aliases=["application"])
    inside(plain, "app", "sh", "-c", "echo one > /data/f; echo two > /unnamed/f")
    image(plain, "app:1", RUN, "ENV VERSION=2", "LABEL built=two")

    change = act(client, "pull_and_recreate", container="app", **LOCAL)
    assert change.changed
    assert names(plain) == {"app"}
    now = plain.inspect_container("app")
    assert now["Id"] == change.after["id"] != change.before["id"] == old
    assert now["Config"]["Image"] == "app:1"
    assert {"OWN=kept", "VERSION=2"} <= set(now["Config"]["Env"])
    assert "VERSION=1" not in now["Config"]["Env"]
    assert {name: now["Config"]["Labels"][name] for name in ("a", "built")} == {"a": "b", "built": "two"}
    assert now["HostConfig"]["Memory"] == 64 << 20
    assert now["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert set(now["NetworkSettings"]["Networks"]) == {"bridge", "seg"}
    assert "application" in now["NetworkSettings"]["Networks"]["seg"]["Aliases"]
    assert inside(plain, "app", "cat", "/data/f", "/unnamed/f") == (0, "one\ntwo\n")
    assert not act(client, "pull_and_recreate", container="app", **LOCAL).changed

    back = act(client, "restore_image", container="app", before=change.before, grace=1)
    assert back.after["image_id"] == change.before["image_id"]
    assert "VERSION=1" in plain.inspect_container("app")["Config"]["Env"]
    again = act(client, "pull_and_recreate", container="app", **LOCAL)
    assert again.after["image_id"] == change.after["image_id"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (['CMD ["sh", "-c", "echo broken; exit 7"]'], "ended at once with exit code 7; its last words: broken"),
        ([RUN, "HEALTHCHECK --interval=200ms --retries=2 CMD echo sick; exit 1"], "is unhealthy; its last words: sick"),
        (['CMD ["/no/such/program"]'], "no such file or directory"),
    ],
    ids=["it ends", "it is unhealthy", "it does not start"],
)
def test_the_old_one_is_back(client: DockerClient, plain: docker.APIClient, changes: list[str], why: str) -> None:
    old = app(plain)
    image(plain, "app:2", *changes)
    with pytest.raises(Refused, match=rf"(?s)app is back as it was \(running\), because .*{why}"):
        act(client, "pull_and_recreate", container="app", image="app:2", healthy=20, **LOCAL)
    assert names(plain) == {"app"}
    now = plain.inspect_container("app")
    assert now["Id"] == old
    assert now["State"]["Running"]


def test_who_died_before_the_new_one_was_made(client: DockerClient, plain: docker.APIClient) -> None:
    old = app(plain)
    plain.rename(old, "app" + PREVIOUS)
    plain.stop(old, timeout=1)
    assert not act(client, "pull_and_recreate", container="app", **LOCAL).changed
    now = plain.inspect_container("app")
    assert (now["Id"], now["State"]["Running"]) == (old, True)


def test_who_died_before_the_old_one_was_removed(client: DockerClient, plain: docker.APIClient) -> None:
    old = app(plain)
    image(plain, "app:2", RUN)
    plain.rename(old, "app" + PREVIOUS)
    plain.stop(old, timeout=1)
    half = make(plain, "app", image="app:2", labels={"nms.service": "true", "nms.instead-of": old})
    change = act(client, "pull_and_recreate", container="app", image="app:2", **LOCAL)
    assert change.changed
    assert change.before["id"] == old
    assert change.after["id"] not in {old, half}
    assert names(plain) == {"app"}


def test_one_that_somebody_else_made_in_its_place_is_not_touched(client: DockerClient, plain: docker.APIClient) -> None:
    old = app(plain)
    plain.rename(old, "app" + PREVIOUS)
    other = make(plain, "app")
    with pytest.raises(Refused, match="was not made in place of"):
        act(client, "pull_and_recreate", container="app", **LOCAL)
    assert plain.inspect_container("app")["Id"] == other
    assert plain.inspect_container(old)["State"]["Running"]


def test_an_image_that_cannot_be_pulled(client: DockerClient, plain: docker.APIClient) -> None:
    old = make(plain, "app", command=FOREVER)
    with pytest.raises(Refused, match=r"127\.0\.0\.1:1|connection refused"):
        act(client, "pull_and_recreate", container="app", image="127.0.0.1:1/app:2")
    assert plain.inspect_container("app")["Id"] == old
