"""A service of the tests' own whose actions cut off addresses, in each shape an argument can have."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from nms_workers.service import AddressToCutOff, Change, Service, TargetSettings, action

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

    def close(self) -> None:
        """Nothing is open."""


class Match(BaseModel):
    """One marked field, and one that is not."""

    drop: AddressToCutOff
    protocol: Literal["tcp", "udp"] = "tcp"


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
