"""Steps in words, for people and for the journal."""

from __future__ import annotations

from dataclasses import dataclass

from idi.plan.types import (
    AwaitReady,
    Detach,
    Ensure,
    Lend,
    Plan,
    Remove,
    Retry,
    StartPart,
    Step,
    StepKind,
    StopPart,
)


@dataclass(frozen=True, slots=True)
class Described:
    """`symbol`: `+` starts, `~` changes, `-` stops, `.` waits. `lane` is a module or part. `reason` is for whoever
    looks now, `brief` for the journal: it names what changed and no value of it."""

    lane: str
    kind: StepKind
    symbol: str
    text: str
    reason: str
    brief: str = ""


def describe(step: Step) -> Described:
    match step:
        case StartPart(name, reason):
            return Described(name, "start-part", "+", f"start {name}", reason, reason)
        case StopPart(name, reason):
            return Described(name, "stop-part", "-", f"stop {name}", reason, reason)
        case Ensure(spec, count, was, reason, brief):
            symbol = "+" if was == 0 else "-" if count < was else "~"
            text = f"{instances(was)} -> {count}" if was else instances(count)
            if step.most > count:
                text += f", by load up to {step.most},"
            return Described(
                spec.module, "ensure", symbol, f"{text} of revision {spec.revision}", reason, brief
            )
        case Retry(module, revision, failed, reason):
            text = f"try {instances(failed)} of revision {revision} again"
            return Described(module, "retry", "~", text, reason, reason)
        case AwaitReady(module, revision, count, deadline_s):
            next_one = " for the next one" if count > 1 else ""
            text = f"wait until {count} of revision {revision} ready (at most {deadline_s:g} s{next_one})"
            return Described(module, "await-ready", ".", text, "")
        case Remove(module, revision, was, reason, brief):
            return Described(
                module, "remove", "-", f"remove revision {revision} ({instances(was)})", reason, brief
            )
        case Lend(spec, run):
            return Described(spec.module, "lend", "+", f"a seat for the instance that {run.by} runs", "")
        case Detach(module, instance, reason, by):
            whose = f"{by} ran" if by else "was registered"
            return Described(module, "detach", "-", f"let {instance} go, which {whose}", reason, reason)


def describe_all(plan: Plan) -> list[Described]:
    return [describe(step) for step in plan.steps()]


def instances(count: int) -> str:
    return f"{count} instance" if count == 1 else f"{count} instances"
