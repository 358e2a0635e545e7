"""HTML of the chat page's live parts. Everything that people or models wrote is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from html import escape

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererProtocol
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from base.plural import counted
from portal.pages.marks import shown
from portal.pages.view import PHASES, Check, Run, Step

ICONS = {"completed": "✓", "failed": "✕", "cancelled": "–"}
WORDS = {
    "pending": "waiting",
    "assigned": "starting",
    "in_progress": "working",
    "waiting": "paused",
    "completed": "done",
    "failed": "failed",
    "cancelled": "stopped",
}
VERDICTS = {"passed": "✓", "failed": "✕", "unmeasured": "?"}
THINKING = (
    '<div class="thinking"><i></i><i></i><i></i>'
    "<span>The supervisor is reading your message</span></div>"
)
HIGHLIGHT_MAX_CHARS = 20_000
TITLE_MAX_CHARS = 220


def _code(code: str, name: str, _: str) -> str:
    if name and len(code) <= HIGHLIGHT_MAX_CHARS:
        try:
            lexer = get_lexer_by_name(name)
        except ClassNotFound:
            return escape(code)
        return str(highlight(code, lexer, HtmlFormatter(nowrap=True)))
    return escape(code)


#: No images: one from elsewhere tells its server who reads, and what its address was made of.
_markdown = (
    MarkdownIt("commonmark", {"html": False, "highlight": _code}).enable(["table"]).disable("image")
)


def _link_open(
    self: RendererProtocol, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType
) -> str:
    """A link opens apart, and tells where it leads nothing about where it stood."""
    tokens[at].attrSet("target", "_blank")
    tokens[at].attrSet("rel", "noopener noreferrer nofollow")
    return str(self.renderToken(tokens, at, options, env))  # type: ignore[attr-defined]


_markdown.add_render_rule("link_open", _link_open)


@lru_cache(maxsize=256)
def markdown(text: str) -> str:
    """Markdown as HTML; HTML in the text is shown as text, links to scripts are dropped."""
    return shown(str(_markdown.render(text)))


def user_text(text: str) -> str:
    """What a person wrote, as it was written."""
    return f'<div class="said" dir="auto">{shown(escape(text))}</div>'


def answer(run: Run) -> str:
    """The answer so far, with a caret while it grows."""
    if not run.answer:
        return ""
    caret = "" if run.whole or run.ended else '<span class="caret"></span>'
    html = markdown(run.answer) if run.whole else shown(str(_markdown.render(run.answer)))
    return f'<div class="prose" dir="auto">{html}{caret}</div>'


def panel(run: Run) -> str:
    """The plan as a checklist with a card for each agent at work; ends as one line."""
    return shown(_panel(run))


def _panel(run: Run) -> str:
    if not run.steps:
        if run.ended:
            return _fault(run)
        return THINKING
    steps = list(run.steps.values())
    done = sum(step.status == "completed" for step in steps)
    body = "".join(_item(step) for step in steps)
    spent = _usd(run.cost_usd or sum(step.cost_usd for step in steps))
    if run.ended:
        checks = [check for step in steps for check in step.checks]
        passed = sum(check.verdict == "passed" for check in checks)
        parts = [f"{done} of {counted(len(steps), 'step')} done"]
        parts += [f"{passed} of {len(checks)} criteria proved"] if checks else []
        parts += [spent] if spent else []
        line = escape(" · ".join(parts))
        word = WORDS[run.status]
        return (
            f'{_fault(run)}<details class="plan {run.status}"><summary><b class="dot {run.status}">'
            f"{ICONS[run.status]}</b><span>{line}</span><em>{word if word != 'done' else ''}</em>"
            f"</summary><ol>{body}</ol></details>"
        )
    head = f"<b>Plan</b><span>{done} of {len(steps)} done</span><em>{escape(spent)}</em>"
    return f'<div class="plan live"><header>{head}</header><ol>{body}</ol></div>'


def _item(step: Step) -> str:
    icon = ICONS.get(step.status, "")
    title = escape(_cut(step.title, TITLE_MAX_CHARS))
    word = "waits for approval" if step.waits else WORDS[step.status]
    card = _card(step) if step.working else ""
    checks = "".join(_check(check) for check in step.checks) if step.ended or step.working else ""
    fault = f'<p class="fault">{escape(_cut(step.error, 500))}</p>' if step.error else ""
    return (
        f'<li class="{step.status}"><div class="step"><b class="dot {step.status}">{icon}</b>'
        f'<span class="title">{title}</span><span class="who">{escape(step.agent)}</span>'
        f"<em>{word}</em></div>{card}{fault}{f'<ul>{checks}</ul>' if checks else ''}</li>"
    )


def _card(step: Step) -> str:
    here = PHASES.index(step.phase) if step.phase in PHASES else -1
    phases = "".join(
        f'<i class="{"past" if at < here else "now" if at == here else ""}">{name.title()}</i>'
        for at, name in enumerate(PHASES)
    )
    percent = round(100 * min(max(step.progress, 0.0), 1.0))
    now = escape(_cut(step.tool, 160)) if step.tool else escape(_cut(step.said, 160))
    kind = "tool" if step.tool else "words"
    spent = escape(_usd(step.cost_usd))
    line = f'<div class="now"><code class="{kind}">{now}</code><em>{spent}</em></div>'
    return (
        f'<div class="card"><div class="phases">{phases}</div>'
        f'<div class="bar" role="progressbar" aria-label="Progress" aria-valuenow="{percent}">'
        f'<i style="width:{percent}%"></i></div>{line if now or spent else ""}{_reins(step)}</div>'
    )


def _reins(step: Step) -> str:
    """What a person may do to one step at work."""
    task_id = escape(step.id, quote=True)
    return (
        f'<div class="reins"><button data-do="steer" data-id="{task_id}">Say something to '
        f"{escape(step.agent)}</button>"
        f'<button data-do="stop" data-id="{task_id}">Stop this step</button></div>'
    )


def _check(check: Check) -> str:
    verdict = check.verdict or "open"
    mark = VERDICTS.get(verdict, "○")
    evidence = f"<small>{escape(_cut(check.evidence, 300))}</small>" if check.evidence else ""
    return (
        f'<li class="check {escape(verdict)}"><b title="{escape(verdict)}">{mark}</b>'
        f"<span>{escape(check.text)}{evidence}</span></li>"
    )


def _fault(run: Run) -> str:
    if run.status == "cancelled":
        return '<div class="notice">Stopped.</div>'
    if run.status == "failed":
        said = run.error or "The request failed; the steps below say where."
        return f'<div class="notice bad">{escape(_cut(said, 600))}</div>'
    return ""


def _usd(amount_usd: float) -> str:
    if not amount_usd:
        return ""
    return f"${amount_usd:.2f}" if amount_usd >= 0.1 else f"${amount_usd:.4f}"


def _cut(text: str, count: int) -> str:
    text = text.strip()
    return text if len(text) <= count else text[: count - 1].rstrip() + "…"
