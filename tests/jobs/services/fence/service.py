"""A service of the tests' own whose actions cut off addresses, in each shape an argument can have."""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, Field, StringConstraints

from nms_workers.arguments import AddressToCutOff
from nms_workers.change import Change, FollowUp, about_to_ask, about_to_change
from nms_workers.errors import Timeout, Underway
from nms_workers.service import Service, TargetSettings, action

Interface = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$")]


class FenceTarget(TargetSettings):
    """Where it is written down what was done."""

    book: Path


class FenceClient:
    """Writes a line for each deed."""

    def __init__(self, target: FenceTarget) -> None:
        self.target = target

    def do(self, deed: str) -> Change:
        """It is done when it is written."""
        with self.target.book.open("a") as book:
            book.write(f"{deed}\n")
        return Change(True, deed)

    def deeds(self) -> list[str]:
        """All of them, in order."""
        return self.target.book.read_text().splitlines() if self.target.book.exists() else []

    def level(self) -> int:
        """The last one that was written; 10 at first."""
        return next((int(deed.removeprefix("level ")) for deed in reversed(self.deeds()) if "level" in deed), 10)

    def close(self) -> None:
        """Nothing is open."""


class Match(BaseModel):
    """One marked field, and one that is not."""

    drop: AddressToCutOff
    protocol: Literal["tcp", "udp"] = "tcp"


class Asked(BaseModel):
    """A follow-up, as an argument."""

    service: str = "fence"
    action: str = "ban"
    target: str = "gate"
    arguments: dict[str, Any]
    evidence: dict[str, Any] = {}


class Fence(Service):
    """Cuts off."""

    kind = "fence"
    Target = FenceTarget
    client = FenceClient

    @action(undo="unban")
    def ban(self, client: FenceClient, address: AddressToCutOff) -> Change:
        """One."""
        return client.do(f"banned {address}")

    @action()
    def unban(self, client: FenceClient, address: str) -> Change:
        """An address that is let in again is not cut off."""
        return client.do(f"let {address} in")

    @action()
    def ban_all(
        self, client: FenceClient, addresses: list[AddressToCutOff], also: AddressToCutOff | None = None
    ) -> Change:
        """Many, and maybe one more."""
        return client.do(f"banned {addresses} and {also}")

    @action()
    def drop(
        self,
        client: FenceClient,
        interface: Interface,
        rules: Annotated[list[Match], Field(max_length=100)],
        named: dict[str, AddressToCutOff] | None = None,
    ) -> Change:
        """Deep in other models."""
        return client.do(f"{rules} and {named} on {interface}")

    @action(confirm=True)
    def raze(self, client: FenceClient) -> Change:
        """Destroys."""
        return client.do("gone")

    @action(undo="withdraw")
    def report(self, client: FenceClient, then: list[Asked], dry_run: bool = False) -> Change:
        """Ask for what is to follow."""
        wanted = tuple(FollowUp(**one.model_dump()) for one in then)
        if dry_run:
            return Change(True, "would report", follow_ups=wanted)
        return msgspec.structs.replace(client.do("reported"), follow_ups=wanted)

    @action()
    def withdraw(self, client: FenceClient) -> Change:
        """Take a report back."""
        return client.do("withdrawn")

    @action()
    def echo(self, client: FenceClient) -> Change:
        """Asks for itself, for ever."""
        more = FollowUp("fence", "echo", "gate", {})
        return msgspec.structs.replace(client.do("echo"), follow_ups=(more,))

    @action(deadline="100s")
    def build(self, client: FenceClient, looks: int) -> Change:
        """Asked for once, and there after so many looks."""
        about_to_change({"tower": False})
        if about_to_ask("a tower"):
            client.do("asked for a tower")
        client.do("looked")
        if client.deeds().count("looked") < looks:
            raise Underway("there is no tower yet", again=15)
        return Change(False, "there is a tower")

    @action(deadline="1s")
    def wait_for_ever(self, client: FenceClient) -> Change:
        """Never done."""
        if about_to_ask("the moon"):
            client.do("asked for the moon")
        raise Underway("there is no moon yet", again=0.05)

    @action(undo="raise_gate")
    def lower(self, client: FenceClient, by: int, fail: bool = False) -> Change:
        """Keeps what there was before it changes it."""
        before = client.level()
        about_to_change({"level": before})
        client.do(f"level {before - by}")
        if fail:
            raise Timeout("no answer")
        return Change(True, "lowered", {"level": before}, {"level": before - by})

    @action()
    def raise_gate(self, client: FenceClient, before: dict[str, int], after: dict[str, int]) -> Change:
        """As it was."""
        return client.do(f"level {before['level']}")
