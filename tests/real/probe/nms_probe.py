"""A service of the tests: it speaks to `tests/real/probe_server.py` and keeps a journal of what its polls yielded.

It reaches the workers as a service of another package would, by the entry point beside this file.
"""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from nms_workers.change import Change, FollowUp
from nms_workers.errors import AuthError, TargetError, Timeout, Unreachable
from nms_workers.records import Sample
from nms_workers.service import BreakerPolicy, Service, TargetSettings, action, poll
from nms_workers.transport.deadline import remaining
from nms_workers.transport.secret import Secret

_CALL_SECONDS = 30.0


class ProbeTarget(TargetSettings):
    """Where the server is, and where the journal of this target's reads is kept."""

    host: str = "127.0.0.1"
    port: int
    alias: str
    password: Secret
    journal: Path
    note: str = ""


class _Stream:
    """One connection: JSON lines both ways. `loose` reads take no notice of the deadline, as a bad library would."""

    def __init__(self, target: ProbeTarget) -> None:
        self._socket = socket.create_connection((target.host, target.port), timeout=remaining(5))
        self._file = self._socket.makefile("rw", encoding="utf-8", newline="\n")
        if not self.ask({"do": "hello", "target": target.alias, "password": target.password.reveal()})["welcome"]:
            self.close()
            raise AuthError("the probe does not take this password")

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._file.write(json.dumps(request) + "\n")
        self._file.flush()
        return self.read()

    def read(self, *, loose: bool = False) -> dict[str, Any]:
        self._socket.settimeout(_CALL_SECONDS if loose else remaining(_CALL_SECONDS))
        line = self._file.readline()
        if not line:
            raise ConnectionResetError("the probe hung up")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._file.close()
        self._socket.close()


class ProbeClient:
    """Keeps one connection for each poll, and one for actions; single flight sees to it that none is used by two."""

    def __init__(self, target: ProbeTarget) -> None:
        self._target = target
        self._streams: dict[str, _Stream] = {}
        self._lock = threading.Lock()

    def read(self, name: str, *, loose: bool = False) -> Iterator[Sample]:
        """Read one poll; what was yielded goes to the journal when the read is over, however it ends."""
        sequence, values = 0, [0.0]
        clean = False
        try:
            stream = self._stream(name)
            sequence = stream.ask({"do": "poll", "poll": name})["sequence"]
            values = [float(sequence)]
            yield Sample("probe_sequence", sequence, {"poll": name})
            while "end" not in (answer := stream.read(loose=loose)):
                values.append(answer["value"])
                yield Sample("probe_value", values[-1], {"poll": name, "index": str(len(values) - 1)})
            clean = True
        except TimeoutError as exc:
            raise Timeout("the probe does not answer in time") from exc
        except OSError as exc:
            raise Unreachable(f"the probe is gone: {type(exc).__name__}") from exc
        finally:
            if not clean:
                self._drop(name)
            if sequence:
                self._write_journal(name, sequence, values)

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """One question of an action."""
        try:
            return self._stream("actions").ask({"do": do, **request})
        except OSError as exc:
            self._drop("actions")
            raise Unreachable(f"the probe is gone: {type(exc).__name__}") from exc

    @property
    def name(self) -> str:
        """Of its target."""
        return self._target.alias

    def close(self) -> None:
        """Hang up."""
        for name in list(self._streams):
            self._drop(name)

    def _stream(self, name: str) -> _Stream:
        if name not in self._streams:
            stream = _Stream(self._target)
            with self._lock:
                self._streams[name] = stream
        return self._streams[name]

    def _drop(self, name: str) -> None:
        with self._lock:
            stream = self._streams.pop(name, None)
        if stream:
            stream.close()

    def _write_journal(self, name: str, sequence: int, values: list[float]) -> None:
        line = json.dumps([self._target.alias, name, sequence, len(values), sum(values)]) + "\n"
        handle = os.open(self._target.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, line.encode())  # one write: several processes share the file
        finally:
            os.close(handle)


class Probe(Service):
    """A server of the tests: it can stall, slow down and die, and it counts."""

    kind = "probe"
    Target = ProbeTarget
    client = ProbeClient
    breaker = BreakerPolicy(failures=1000, reset=1.0)

    @poll(every="1s")
    def quick(self, client: ProbeClient) -> Iterator[Sample]:
        """A few values every second."""
        yield from client.read("quick")

    @poll(every="2s")
    def steady(self, client: ProbeClient) -> Iterator[Sample]:
        """A few values every two seconds."""
        yield from client.read("steady")

    @poll(every="1s")
    def stubborn(self, client: ProbeClient) -> Iterator[Sample]:
        """A client that does not look at its deadline while it waits."""
        yield from client.read("stubborn", loose=True)

    @poll(every="2s", shard=50)
    def together(self, clients: Mapping[str, ProbeClient]) -> Iterator[tuple[str, Sample | TargetError]]:
        """Many targets in one task."""
        for name, client in clients.items():
            try:
                for sample in client.read("together"):
                    yield name, sample
            except TargetError as exc:
                yield name, exc

    @action(deadline="10s", undo="lift")
    def apply(self, client: ProbeClient, effect: str) -> Change:
        """Bring an effect about, unless it is there."""
        if client.ask("look", effect=effect)["applied"]:
            return Change(changed=False, message=f"{effect} was there")
        client.ask("apply", effect=effect)
        return Change(changed=True, message=f"{effect} is there now")

    @action(deadline="10s")
    def lift(self, client: ProbeClient, effect: str) -> Change:
        """Take an effect back; that is an effect too."""
        client.ask("apply", effect=f"undo {effect}")
        return Change(changed=True, message=f"{effect} is gone")

    @action(deadline="10s", undo="lift")
    def spread(self, client: ProbeClient, effect: str, dry_run: bool = False) -> Change:
        """Bring an effect about, and ask for another one to follow."""
        more = FollowUp("probe", "apply", client.name, {"effect": f"{effect} too"}, {"seen": effect})
        if dry_run:
            return Change(changed=True, message=f"{effect} would be there", follow_ups=(more,))
        return msgspec.structs.replace(self.apply(client, effect), follow_ups=(more,))

    @action(deadline="10s", runs_at="edge")
    def beside(self, client: ProbeClient, effect: str) -> Change:
        """Bring an effect about from the host beside the probe."""
        client.ask("apply", effect=effect)
        return Change(changed=True, message=f"{effect} is there now")

    @action(deadline="5s")
    def poison(self, client: ProbeClient, effect: str) -> Change:
        """Kill the process that runs it."""
        client.ask("apply", effect=effect)
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(_CALL_SECONDS)  # the signal arrives before this ends
        return Change(changed=True, message="it lives")

    @action(deadline="2s")
    def hang(self, client: ProbeClient, effect: str) -> Change:
        """Wait beyond every limit."""
        client.ask("apply", effect=effect)
        time.sleep(_CALL_SECONDS)
        return Change(changed=True, message="it waited")
