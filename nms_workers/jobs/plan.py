"""Several actions in order: the next begins when the one before has done its work; when one fails, those are undone.

name = "isolate"                    # why, for the audit

[[steps]]
service = "traffic_control"
target = "edge"
action = "shape"
arguments = { interface = "eth0", rate = "10mbit" }
"""

import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import func, select

from nms_workers.errors import ConfigError
from nms_workers.jobs.desk import Desk
from nms_workers.jobs.guards import refusal
from nms_workers.jobs.job import Job, from_row, new_id, of_plan
from nms_workers.jobs.row import about_to_be_sent, add
from nms_workers.jobs.submit import refuse, require_target
from nms_workers.jobs.wish import Wish, action_of, checked
from nms_workers.settings import Duration
from nms_workers.store.schema import jobs

LONGEST_PLAN = 100  # steps


class Step(BaseModel):
    """One action of a plan."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    service: str
    action: str
    target: str
    arguments: dict[str, Any] = {}
    undo_after: Duration | None = None


class Plan(BaseModel):
    """Actions in order. `expires`: a step that has not begun so long after the plan was submitted is not begun."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str
    steps: list[Step] = Field(min_length=1, max_length=LONGEST_PLAN)
    expires: Duration | None = None

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """Read and check a plan.

        Raises:
            ConfigError: it cannot be read, is not TOML, or is no plan; the message says where.
        """
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"{path} cannot be read: {getattr(exc, 'strerror', exc)}") from None
        except tomllib.TOMLDecodeError as exc:
            raise ConfigError(f"{path} is not TOML: {exc}") from None
        except ValidationError as exc:
            faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors(include_input=False))
            raise ConfigError(f"{path} is no plan: {faults}") from None

    def wishes(self, requested_by: str) -> list[Wish]:
        """A wish for each step."""
        return [
            Wish(
                service=step.service,
                action=step.action,
                target=step.target,
                arguments=step.arguments,
                requested_by=requested_by,
                reason=f"{self.name}, step {number}",
                undo_after=step.undo_after,
            )
            for number, step in enumerate(self.steps, start=1)
        ]


def submit_plan(desk: Desk, plan: Plan, requested_by: str) -> list[Job]:
    """Commit all steps of a plan at once and publish the first.

    Returns:
        the job of each step. When a guard refuses one, that one is refused and the others are cancelled.

    Raises:
        Refused: the arguments of a step do not fit its action.
        ConfigError, NmsError: a step names no service, action or active target that there is.
    """
    steps = []
    for wish in plan.wishes(requested_by):
        declared = action_of(wish.service, wish.action)
        typed, arguments = checked(wish, declared)
        with desk.engine.connect() as connection:
            require_target(connection, wish.service, wish.target)
        steps.append((wish, declared, typed, arguments))
    plan_id, made, refused = new_id(), list[Job](), list[tuple[Job, str]]()
    with desk.engine.begin() as connection:
        for number, (wish, declared, typed, arguments) in enumerate(steps, start=1):
            why = refusal(connection, desk.settings, wish, declared, typed)
            columns: dict[str, Any] = {"plan": plan_id, "step": number}
            columns |= {"follows": made[-1].id, "due_at": None} if made else about_to_be_sent()
            if plan.expires is not None:
                columns["expires_at"] = func.now() + timedelta(seconds=plan.expires)
            job = add(connection, wish, arguments, new_id(), **columns)
            assert job is not None  # its id is new and it has no key  # noqa: S101
            made.append(job)
            if why is not None:
                refused.append((job, why))
        if refused:
            refuse(connection, *refused[0])
        first = from_row(connection.execute(select(jobs).where(jobs.c.id == made[0].id)).one())
    if first.state == "queued":
        desk.send([first])
    return list(of_plan(desk.engine, plan_id))
