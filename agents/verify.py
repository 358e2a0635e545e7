"""VERIFY: the system measures each criterion; the model only says what caused a failure."""

from __future__ import annotations

from agents import frame, model, probe, tool_audit
from agents.grip import Grip
from agents.parts import Parts
from agents.task import Task
from base.deadline import Deadline
from base.errors import SandboxError
from base.messages import Checked, Criterion, Kind, Phase, Verdict
from pai.phases import FRAMING

PROBE_S = 300.0
EVIDENCE_FILES = 5
EVIDENCE_CHARS = 6_000


async def measure(parts: Parts, task: Task, grip: Grip) -> None:
    """Run every probe. Without a sandbox all that need one read unmeasured."""

    async def ask_judge(criterion: Criterion) -> tuple[bool | None, str]:
        return await model.judge(parts, task, await _evidence(task, grip, criterion))

    checked: list[Checked] = []
    for criterion in task.criteria:
        await parts.reins.safe_point(task)
        try:
            hands = await grip.hold()
        except SandboxError as error:
            parts.transcript.line(str(error), "31")
            hands = None
        one = await probe.check(
            criterion,
            hands,
            workspace=task.workspace,
            level=task.level,
            judge=ask_judge,
            deadline=Deadline.after(PROBE_S),
        )
        await tool_audit.probed(parts, task, criterion, one)
        checked.append(one)
        parts.transcript.criterion(one)
        parts.emit(Kind.CRITERION, **one.model_dump(mode="json"))
    task.add("measured", sync=True, checked=[one.model_dump(mode="json") for one in checked])


async def trace(parts: Parts, task: Task) -> None:
    """Ask which phase caused what failed, with the evidence; the loop goes back there."""
    task.tell(
        f"trace-{task.state.round}",
        f"[system] Phase VERIFY, measured by the system:\n{report(task.checked)}\n"
        "Call `trace`: which phase caused what did not pass?",
    )
    reply = task.pending("trace") or await model.ask(parts, task, "trace", force="trace")
    given = frame.forced(task, reply, "trace")
    known = {phase.value for phase in (*FRAMING, Phase.EXECUTE)}
    named = str(given.get("phase") or "")
    phase = Phase(named) if named in known else Phase.EXECUTE
    cause = str(given.get("cause") or "the model gave no cause")
    await frame.settle(parts, task, reply, "trace", f"Going back to {phase}.")
    task.add("traced", sync=True, phase=phase, cause=cause, fix=str(given.get("fix") or ""))
    parts.transcript.line(f"↺ back to {phase}: {cause[:300]}", "33")


def report(checked: list[Checked]) -> str:
    """One line a criterion that did not pass, with its evidence; then how many did."""
    missed = [one for one in checked if one.verdict is not Verdict.PASSED]
    lines = [f"- {one.id} {one.verdict}: {one.text}: {one.evidence}" for one in missed]
    passed = len(checked) - len(missed)
    return "\n".join([*lines, f"- {passed} of {len(checked)} criteria passed"])


async def _evidence(task: Task, grip: Grip, criterion: Criterion) -> str:
    """What the judge sees: request, criterion, answer and the start of the files written."""
    parts = [
        f"<request>\n{task.order.request[:EVIDENCE_CHARS]}\n</request>",
        f"Criterion {criterion.id}: {criterion.text}",
        f"Question: {criterion.probe.question}",
        f"<answer>\n{task.answer()[:EVIDENCE_CHARS]}\n</answer>",
    ]
    for path in task.files[-EVIDENCE_FILES:]:
        result = await grip.call("read", {"path": path})
        parts.append(f'<file path="{path}">\n{result.text[:EVIDENCE_CHARS]}\n</file>')
    return "\n\n".join(parts)
