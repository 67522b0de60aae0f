"""Names of objects, from MIB files in folders that the settings name. Nothing is ever looked for on a network."""

import json
from bisect import bisect_right
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from nms_workers.errors import ConfigError
from nms_workers.services.snmp.oid import arcs_of

_MAX_FILES = 2000


class Symbols:
    """Objects by name and by number.

    Args:
        oids: `MODULE::name` to object identifier.
    """

    def __init__(self, oids: Mapping[str, str]) -> None:
        self._oids = dict(oids)
        self._sorted = sorted((arcs_of(oid), name) for name, oid in oids.items())

    def oid(self, name: str) -> str:
        """The object identifier of `MODULE::name`, or of `MODULE::name.1.2`, one instance.

        Raises:
            ConfigError: no such name in the MIB files.
        """
        base, dot, index = name.partition(".")
        if base not in self._oids:
            raise ConfigError(f"no MIB file has {base[:200]}", hint="add its file to a folder of `mibs`")
        return f"{self._oids[base]}{dot}{index}"

    def name(self, oid: str) -> str:
        """`MODULE::name` of the nearest object at or above, and the numbers below it; the OID itself where none is."""
        arcs = arcs_of(oid)
        for length in range(len(arcs), 1, -1):
            place = bisect_right(self._sorted, (arcs[:length], chr(0x10FFFF)))
            if place and self._sorted[place - 1][0] == arcs[:length]:
                return ".".join([self._sorted[place - 1][1], *map(str, arcs[length:])])
        return oid


@cache
def symbols(folders: tuple[Path, ...]) -> Symbols:
    """What the MIB files of these folders name; compiled once in each process. With no folder, nothing.

    Raises:
        ConfigError: a folder cannot be read, or a file is no MIB module; the message says which.
    """
    found: dict[str, str] = {}
    for module, told in compiled(folders).items():
        for symbol in told.values():
            if isinstance(symbol, dict) and "oid" in symbol:
                found[f"{module}::{symbol['name']}"] = symbol["oid"]
    return Symbols(found)


@cache
def compiled(folders: tuple[Path, ...]) -> dict[str, dict[str, Any]]:
    """What the modules of these folders define: module to name to its definition, as pysmi's JSON has it.

    Raises:
        ConfigError: as `symbols`.
    """
    if not folders:
        return {}
    # slow to import, and rarely needed
    from pysmi.codegen.jsondoc import JsonCodeGen  # noqa: PLC0415
    from pysmi.compiler import MibCompiler  # noqa: PLC0415
    from pysmi.parser.dialect import smi_v1_relaxed  # noqa: PLC0415
    from pysmi.parser.smi import parserFactory  # noqa: PLC0415
    from pysmi.reader import FileReader  # noqa: PLC0415
    from pysmi.writer import CallbackWriter  # noqa: PLC0415

    found: dict[str, dict[str, Any]] = {}

    def keep(module: str, text: str, _: object) -> None:
        found[module] = json.loads(text)

    compiler = MibCompiler(parserFactory(**smi_v1_relaxed)(), JsonCodeGen(), CallbackWriter(keep))
    compiler.add_sources(*(FileReader(str(folder)) for folder in folders))
    results = compiler.compile(*_modules(folders), ignoreErrors=True)
    for module, status in results.items():
        if status == "missing" and module in JsonCodeGen.baseMibs:
            continue  # pysmi looks for the base of SMIv2 whether it is imported or not
        if status in ("failed", "missing", "unprocessed"):
            why = f": {status.error}" if getattr(status, "error", None) else ""
            hint = "all modules that it imports from must be in a folder of `mibs`, too"
            raise ConfigError(f"the MIB module {module} cannot be used, {status}{why}"[:500], hint=hint)
    return found


def _modules(folders: tuple[Path, ...]) -> list[str]:
    """The modules that there are, each by the name of its file without ending."""
    files: list[Path] = []
    for folder in folders:
        try:
            files += sorted(one for one in folder.iterdir() if one.is_file() and not one.name.startswith("."))
        except OSError as exc:
            raise ConfigError(f"the MIB folder {folder} cannot be read: {exc.strerror}") from None
    if len(files) > _MAX_FILES:
        raise ConfigError(f"there are {len(files)} MIB files, more than {_MAX_FILES}", hint="name fewer folders")
    return list(dict.fromkeys(one.stem for one in files))
