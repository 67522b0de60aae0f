"""Rule files go live: checked by the engine itself first, the old one kept, and put back when loading fails."""

import os
import re
import shutil
import subprocess
import tempfile
import time
from fnmatch import fnmatchcase
from pathlib import Path

from nms_workers.errors import AuthError, Refused, TargetError, Timeout
from nms_workers.services.suricata.command import CommandSocket
from nms_workers.services.suricata.target import SuricataTarget
from nms_workers.transport.deadline import remaining

PREVIOUS = ".previous"  # ends the name of the old file, which is kept beside the new one
_MAX_FILES = 10_000
_FAULT = re.compile(r"from file (?P<file>.+?) at line (?P<line>\d+)")
_WAIT = 0.2  # seconds between looks at a load that somebody else began


class Ruleset:
    """The rule files of one engine.

    Args:
        target: the settings.
        commands: its command socket.
    """

    def __init__(self, target: SuricataTarget, commands: CommandSocket) -> None:
        self._target, self._commands = target, commands

    @property
    def folder(self) -> Path:
        """Where its rule files are.

        Raises:
            TargetError: it does not say.
        """
        return self._target.rules or Path(str(self._commands.ask("conf-get", {"variable": "default-rule-path"})))

    def patterns(self) -> list[str]:
        """Whole paths of `rule-files` in its settings, in order; they may hold wildcards.

        Raises:
            TargetError: it does not say.
        """
        found: list[str] = []
        while len(found) < _MAX_FILES:
            try:
                name = self._commands.ask("conf-get", {"variable": f"rule-files.{len(found)}"})
            except Refused:  # that was the last
                break
            found.append(str(self.folder / str(name)))
        return found

    def files(self) -> list[Path]:
        """The rule files that its settings name, those that exist, each once.

        Raises:
            TargetError: it does not say.
        """
        found = [Path(path) for pattern in self.patterns() for path in _matching(pattern)]
        return [path for path in dict.fromkeys(found) if path.is_file()]

    def names(self, path: Path) -> bool:
        """Whether the settings name this file, existing or not.

        Raises:
            TargetError: it does not say.
        """
        return any(fnmatchcase(str(path), pattern) for pattern in self.patterns())

    def reload(self) -> None:
        """Load the rules anew, and wait until that is done.

        Raises:
            Refused: the engine could not.
            Timeout: it took longer than `reload_timeout`.
            TargetError: as its name says.
        """
        ends = time.monotonic() + remaining(self._target.reload_timeout)
        while True:
            try:
                self._commands.ask("reload-rules", timeout=self._target.reload_timeout)
            except Refused as exc:
                if "in progress" not in exc.message or time.monotonic() > ends:
                    raise
                time.sleep(_WAIT)  # the engine tells nobody when the other load ends
            else:
                return

    def put_live(self, path: Path, text: str) -> None:
        """Replace a rule file and load the rules; when that fails the old file is put back and loaded.

        Args:
            path: of the file.
            text: what it shall hold.

        Raises:
            Refused: a rule in it is faulty, or the engine could not load it: the rules are those of before.
            TargetError: as its name says.
        """
        self._check(path, text)
        previous = path.with_name(path.name + PREVIOUS)
        existed = path.exists()
        if existed:
            _write(previous, path.read_bytes(), like=path)
        _write(path, text.encode(errors="surrogateescape"), like=path if existed else None)
        try:
            self.reload()
            self._verify(path)
        except TargetError as exc:
            if existed:
                _write(path, previous.read_bytes(), like=previous)
            else:
                path.unlink()
            raise self._rolled_back(path, exc) from None

    def _rolled_back(self, path: Path, why: TargetError) -> TargetError:
        try:
            self.reload()
        except TargetError as exc:
            hint = "load the rules once it is well again"
            return type(why)(
                f"{why.message}. {path} is the old one again, but was not loaded: {exc.message}", hint=hint
            )
        return type(why)(f"{why.message}. {path} is the old one again, and loaded", hint=why.hint)

    def _verify(self, path: Path) -> None:
        failed = self._commands.ask("ruleset-failed-rules")
        lines = [str(one.get("line")) for one in failed if str(one.get("filename")) == str(path)]
        if lines:
            raise Refused(f"the engine could not load the rules in line {', '.join(lines[:20])} of {path.name}")

    def _check(self, path: Path, text: str) -> None:
        """Let the engine test all the rules with the new file in its place, in a folder of their own."""
        with tempfile.TemporaryDirectory(prefix="nms-suricata-") as scratch:
            staged = Path(scratch) / "rules"
            staged.mkdir()
            for one in path.parent.iterdir():  # rules may name data sets and scripts beside them
                if one.name != path.name:
                    (staged / one.name).symlink_to(one)
            (staged / path.name).write_bytes(text.encode(errors="surrogateescape"))
            settings = [f"default-rule-path={staged}"]
            for number, pattern in enumerate(self.patterns()):
                if fnmatchcase(str(path), pattern):
                    settings.append(f"rule-files.{number}={staged / Path(pattern).name}")
                elif _matching(pattern):
                    settings.append(f"rule-files.{number}={pattern}")
                else:  # the engine warns of a file that is not there; its test fails
                    (staged / ".none").touch()
                    settings.append(f"rule-files.{number}={staged / '.none'}")
            self._test(settings, staged / path.name, Path(scratch))

    def _test(self, settings: list[str], file: Path, log: Path) -> None:
        target = self._target
        argv = [str(target.program), "-T", "-c", str(target.config), "-l", str(log)]
        argv += [part for setting in settings for part in ("--set", setting)]
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=remaining(target.reload_timeout),
                check=False,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired:
            raise Timeout("the check of the rules did not end in time", hint="raise reload_timeout") from None
        except OSError as exc:
            raise Refused(f"{target.program} cannot be run: {exc.strerror}", hint="set program") from None
        if done.returncode == 0:
            return
        said = (done.stderr + done.stdout).decode(errors="replace")
        faults = list(_FAULT.finditer(said))
        own = [fault for fault in faults if fault["file"] == str(file)]
        if own:
            before = said[: own[0].start()].splitlines()[:-1]  # the line before says what is wrong
            reason = before[-1].removeprefix("E: ") if before else "no reason given"
            where = f"line {', '.join(fault['line'] for fault in own[:20])} of {file.name}"
            raise Refused(f"the engine refuses {where}: {reason[:300]}", hint="nothing was changed")
        if not faults:  # faults in other files alone were there before
            errors = [line.removeprefix("E: ") for line in said.splitlines() if line.startswith("E: ")]
            reason = errors[0] if errors else "no reason given"
            raise Refused(f"the engine refuses its settings: {reason[:300]}", hint=f"suricata -T -c {target.config}")


def _matching(pattern: str) -> list[Path]:
    return sorted(Path("/").glob(pattern.lstrip("/")))


def _write(path: Path, content: bytes, *, like: Path | None) -> None:
    """Replace a file as a whole, with the owner and mode of another."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        with fresh.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        if like is not None:
            known = like.stat()
            shutil.copymode(like, fresh)
            if (known.st_uid, known.st_gid) != (os.geteuid(), os.getegid()) and os.geteuid() == 0:
                os.chown(fresh, known.st_uid, known.st_gid)
        fresh.replace(path)
    except PermissionError:
        raise AuthError(f"we may not write {path}", hint="let the worker's user write the rule files") from None
    except OSError as exc:
        raise Refused(f"{path} cannot be written: {exc.strerror}") from None
