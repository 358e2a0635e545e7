"""HTML of the parts of a task's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape

from base.approvals import Approval
from base.plural import counted
from portal.pages import draw, parts, rows
from portal.pages.course import Call
from portal.pages.marks import shown
from portal.pages.view import Run, Step
from portal.work import Note, Task

MARKS = {"passed": "✓", "failed": "✗", "unmeasured": "?"}
CALLS_SHOWN = 300
RESULT_CHARS = 400


def merged(fresh: Run, known: Run) -> Run:
    """The record's view, with what only events tell: tools, words, what has not been written."""
    steps = dict(fresh.steps)
    for step_id, step in known.steps.items():
        if (recorded := steps.get(step_id)) is None:
            steps[step_id] = step
        elif recorded.ended:
            measured = any(check.verdict for check in recorded.checks)
            checks = recorded.checks if measured else step.checks or recorded.checks
            steps[step_id] = replace(recorded, checks=checks)
        else:
            steps[step_id] = replace(
                recorded,
                tool=step.tool,
                tools=step.tools,
                said=step.said,
                phase=step.phase or recorded.phase,
                progress=max(step.progress, recorded.progress),
                cost_usd=max(step.cost_usd, recorded.cost_usd),
                checks=step.checks or recorded.checks,
            )
    return replace(fresh, steps=steps, answer=known.answer, whole=known.whole)


def head(root: Task, run: Run) -> str:
    """What was asked, by state."""
    given = root.input if isinstance(root.input, Mapping) else {}
    text = str(given.get("content") or root.title or "")
    word = rows.WORDS.get(run.status, run.status)
    facts = [f"asked {parts.when(root.created_at)}", f"effort {escape(root.effort)}"]
    if root.requested_agent:
        facts.append(f"only {escape(root.requested_agent)}")
    facts.append(f"workspace {escape(root.workspace)} <code>{root.id}</code>")
    return shown(
        f"<p>{parts.pill(word, parts.tone(run.status))}<small>{' · '.join(facts)}</small></p>"
        f'<blockquote dir="auto">{escape(text)}</blockquote>'
    )


def tiles(root: Task, run: Run, subtasks: Sequence[Task], *, rehearsal: bool) -> str:
    """The figures of the whole. rehearsal: nobody charges for its model calls."""
    checks = [check for step in run.steps.values() for check in step.checks]
    passed = sum(check.verdict == "passed" for check in checks)
    done = sum(step.status == "completed" for step in run.steps.values())
    used = [task.usage for task in (subtasks if not root.status.ended else (root,))]
    tokens = sum(
        float(one.get(name) or 0)
        for one in used
        for name in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    )
    calls = sum(int(one.get("model_calls") or 0) for one in used)
    cost_usd = run.cost_usd or sum(step.cost_usd for step in run.steps.values())
    limit = f"of at most {parts.usd(root.budget_usd)}" if root.budget_usd else ""
    return (
        parts.tile("Steps done", f"{done} of {len(run.steps)}")
        + parts.tile("Criteria proved", f"{passed} of {len(checks)}" if checks else "none set")
        + parts.tile("Took" if run.ended else "Has taken", rows.duration(root) or "not begun")
        + parts.tile("Model calls", str(calls), f"{parts.count(tokens)} tokens")
        + parts.tile(
            "Would have cost" if rehearsal else "Cost",
            parts.usd(cost_usd),
            parts.FREE if rehearsal else limit,
        )
    )


def notices(root: Task, run: Run, approvals: Sequence[Approval]) -> str:
    """What stops it: approvals that wait, and why it failed."""
    waits = "".join(
        f'<p class="notice warn" dir="auto"><b>Waits for your approval.</b> '
        f'{escape(one.sentence)} <a href="/approvals">Answer it</a></p>'
        for one in approvals
    )
    fault = run.error or root.error
    if run.status == "failed" and fault:
        waits += f'<p class="notice bad" dir="auto"><b>Failed:</b> {escape(fault)}</p>'
    if root.cancel_requested and not run.ended:
        waits += '<p class="notice warn">It is being cancelled.</p>'
    return shown(waits)


def answer(root: Task, run: Run) -> str:
    """The joined answer, or that there is none yet."""
    output = root.output if isinstance(root.output, Mapping) else {}
    text = run.answer or str(output.get("answer") or "")
    if text:
        return f'<div class="prose" dir="auto">{draw.markdown(text)}</div>'
    return _hint("There was no answer." if run.ended else "The answer comes when all steps end.")


def criteria(steps: Mapping[str, Step]) -> str:
    """Each criterion with its verdict and the evidence."""
    found = ""
    for step in steps.values():
        if not step.checks:
            continue
        lines = "".join(
            f'<li class="{escape(check.verdict or "open")}"><b aria-hidden="true">'
            f"{MARKS.get(check.verdict or '', '○')}</b><div><span dir=auto>{escape(check.text)}"
            f"</span><small>{escape(check.id)} · {escape(check.verdict or 'not measured yet')}"
            f"</small>{_evidence(check.evidence)}</div></li>"
            for check in step.checks
        )
        found += f"<h3>{_name(step)}</h3><ul class=criteria>{lines}</ul>"
    return shown(found) if found else _hint("No criteria were set.")


def calls(found: Sequence[Call]) -> str:
    """Tool calls, newest first."""
    if not found:
        return _hint("No tool calls are known. What was told longer ago is not kept.")
    lines = ""
    for call in reversed(found[-CALLS_SHOWN:]):
        state = "running" if call.end is None else "ok" if call.ok else "failed"
        kind = {"running": "busy", "ok": "good", "failed": "bad"}[state]
        took = rows.long((call.end - call.start).total_seconds()) if call.end else ""
        result = escape(call.result[:RESULT_CHARS])
        said = f"<small dir=auto>{result}</small>" if result else ""
        lines += (
            f"<li>{parts.when(call.start)}<b>{escape(call.agent)}</b>"
            f'{parts.pill(state, kind)}<em>{took}</em><code dir="auto">{escape(call.name)} '
            f"{escape(call.summary)}</code>{said}</li>"
        )
    more = len(found) - CALLS_SHOWN
    tail = (
        f'<p class="hint">{counted(more, "earlier one is", "earlier ones are")} not shown.</p>'
        if more > 0
        else ""
    )
    return shown(f"<ol class=calls>{lines}</ol>{tail}")


def log(notes: Sequence[Note], steps: Mapping[str, Step]) -> str:
    """The supervisor's lines, oldest first."""
    lines = "".join(
        f'<li class="{escape(note.level)}">{parts.when(note.created_at)}'
        f"<b>{_name(steps[note.task_id]) if note.task_id in steps else 'the whole'}</b>"
        f'<span dir="auto">{escape(note.message)}{_data(note.data)}</span></li>'
        for note in notes
    )
    return shown(f"<ol class=notes>{lines}</ol>") if lines else _hint("Nothing yet.")


def documents(steps: Mapping[str, Step], found: Mapping[str, str]) -> str:
    """Each part's PRD.md as it is."""
    shown_ones = "".join(
        f"<details open><summary>{_name(steps[task_id]) if task_id in steps else 'the whole'}"
        f"</summary><pre dir=auto>{escape(text)}</pre></details>"
        for task_id, text in found.items()
    )
    return shown(shown_ones) if shown_ones else _hint(
        "There is none: the work has not begun, needed no plan, or its folder was archived."
    )  # fmt: skip


def usage(root: Task, subtasks: Sequence[Task]) -> str:
    """What each part spent, then the whole, which holds planning and joining too."""
    lines = ""
    for task in (*subtasks, root):
        name = "The whole" if task is root else rows.title(task)
        used = task.usage
        numbers = "".join(
            f'<td class=num data-name="{label}">{parts.count(float(used.get(key) or 0))}</td>'
            for label, key in _COLUMNS.items()
        )
        spent = parts.usd(float(used.get("cost_usd") or 0))
        lines += (
            f"<tr><td data-name=Part dir=auto>{escape(name)}</td>"
            f"<td data-name=Agent>{escape(task.assigned_agent)}</td>"
            f"{numbers}<td class=num data-name=Cost>{spent}</td></tr>"
        )
    heads = "".join(f"<th class=num>{name}</th>" for name in (*_COLUMNS, "Cost"))
    return shown(
        f"<div class=grid><table><thead><tr><th>Part</th><th>Agent</th>{heads}</tr></thead>"
        f"<tbody>{lines}</tbody></table></div>"
    )


_COLUMNS = {
    "Calls": "model_calls",
    "In": "input_tokens",
    "Out": "output_tokens",
    "Cache read": "cache_read_tokens",
    "Cache write": "cache_write_tokens",
}


def _evidence(text: str) -> str:
    return f"<pre>{escape(text)}</pre>" if text else ""


def _name(step: Step) -> str:
    title = " ".join((step.title or step.key).split())
    return f"<span dir=auto>{escape(title)}</span> <em>{escape(step.agent)}</em>"


def _data(data: object) -> str:
    if not isinstance(data, Mapping) or not data:
        return ""
    said = ", ".join(f"{key} {value}" for key, value in data.items())
    return f" <small>{escape(said)}</small>"


def _hint(said: str) -> str:
    return f'<p class="hint">{escape(said)}</p>'
