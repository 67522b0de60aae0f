"""References to secrets. Settings hold the reference; the value is read when it is used and can never be printed."""

import os
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from nms_workers.errors import ConfigError

_HINT = 'write "env:NAME" or "file:/path": secrets never stand in the settings themselves'


class Secret:
    """A reference to a secret: `env:NAME` or `file:PATH`.

    Prints as the reference. A file is read anew at each use, so a rotated token needs no restart.
    """

    __slots__ = ("reference",)

    def __init__(self, reference: str) -> None:
        scheme, _, rest = reference.partition(":")
        if scheme not in ("env", "file") or not rest:
            raise ConfigError("a secret must be a reference", hint=_HINT)
        self.reference = reference

    def reveal(self) -> str:
        """The secret itself.

        Raises:
            ConfigError: the variable is not set, or the file cannot be read.
        """
        scheme, _, rest = self.reference.partition(":")
        if scheme == "env":
            try:
                return os.environ[rest]
            except KeyError:
                raise ConfigError(f"the environment variable {rest} is not set", hint=f"export {rest}") from None
        try:
            return Path(rest).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"the secret file {rest} cannot be read: {type(exc).__name__}") from None

    def __str__(self) -> str:
        return self.reference

    def __repr__(self) -> str:
        return f"Secret({self.reference!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.reference == self.reference

    def __hash__(self) -> int:
        return hash(self.reference)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def parse(value: object) -> Secret:
            if isinstance(value, Secret):
                return value
            if not isinstance(value, str):
                raise ValueError(_HINT)  # noqa: TRY004 - pydantic reports ValueError with its place
            try:
                return cls(value)
            except ConfigError:
                raise ValueError(_HINT) from None  # without the value: it may be the secret itself

        return core_schema.no_info_plain_validator_function(
            parse,
            serialization=core_schema.plain_serializer_function_ser_schema(str),
            json_schema_input_schema=core_schema.str_schema(pattern="^(env|file):.+"),
        )
