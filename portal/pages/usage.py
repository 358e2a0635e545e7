"""The usage page: what model calls cost by day, agent and model, against the limits."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from fastapi import FastAPI, Request
from nicegui import Client, ui

from portal import spending
from portal.auth import Caller
from portal.desk import Desk
from portal.pages import bars, parts, shell
from portal.pages.live import Live
from portal.pages.marks import shown
from portal.spending import Report, Sums

TITLE_CHARS = 90
#: Of the page's ticks: how many pass until the figures are read again.
AGAIN_TICKS = 15
MEASURES: dict[str, tuple[str, Callable[[Sums], float], Callable[[float], str]]] = {
    "cost": ("Cost", lambda sums: sums.cost_usd, parts.usd),
    "tokens": ("Tokens", lambda sums: sums.tokens, parts.count),
    "rehearsed": ("Rehearsed cost", lambda sums: sums.rehearsed_usd, parts.usd),
}


def install(app: FastAPI) -> None:
    """`/usage`."""
    shell.page(app, "/usage", _draw)


async def _draw(desk: Desk, caller: Caller, client: Client, request: Request) -> None:
    live = Live(desk, caller, client)
    made = await shell.build(desk, caller, client, here="/usage", title="Usage", styles=("usage",))
    page = Usage(desk, caller)
    with made.body, ui.element("div").classes("page usage"):
        await page.build()

    async def take(_: Any) -> None: ...

    live.start(made, take, tick=page.tick)


class Usage:
    """What is chosen, and the parts that are painted anew."""

    def __init__(self, desk: Desk, caller: Caller) -> None:
        self._desk = desk
        self._caller = caller
        self._days = 30
        self._by: spending.By = "agent"
        self._measure = ""
        self._ticks = 0

    async def build(self) -> None:
        """Make the page inside the present element."""
        with ui.element("div").classes("line"):
            days = {count: f"{count} days" for count in spending.RANGES}
            ui.toggle(days, value=self._days, on_change=self._choose_days).props(
                'no-caps unelevated dense aria-label="How many days"'
            )
            ui.element("div").classes("grow")
            whose = "everybody's calls" if self._caller.admin else "calls of your own tasks"
            ui.label(f"Days are UTC days; {whose}.").classes("hint")
        self._note = ui.html("").classes("note")
        self._tiles = ui.html("").classes("tiles")
        self._limits = ui.html("").classes("limits")
        self._empty = parts.empty(
            "bar_chart",
            "No model was called in these days",
            "Ask the agents something in the chat: every call shows up here with its cost.",
        )
        with ui.element("div").classes("panel") as self._panel:
            with ui.element("div").classes("line"):
                ui.toggle(
                    {"agent": "By agent", "model": "By model"},
                    value=self._by,
                    on_change=self._choose_by,
                ).props('no-caps unelevated dense aria-label="Bars by"')
                ui.element("div").classes("grow")
                self._measures = ui.toggle({}, on_change=self._choose_measure).props(
                    'no-caps unelevated dense aria-label="Bars show"'
                )
            self._chart = ui.html("")
        self._tables = ui.html("").classes("tables")
        await self._read()

    async def tick(self) -> None:
        """Read the figures again about once a minute."""
        self._ticks += 1
        if self._ticks % AGAIN_TICKS == 0:
            await self._read()

    async def _read(self) -> None:
        self._report = await spending.report(self._desk, self._caller, self._days)
        budget = await spending.budget(self._desk, self._caller)
        month = await spending.month(self._desk)
        whole = self._report.whole
        options = {"cost": "Cost", "tokens": "Tokens"}
        if whole.rehearsed_usd > 0:
            options["rehearsed"] = MEASURES["rehearsed"][0]
        if self._measure not in options:
            self._measure = "cost" if whole.cost_usd > 0 else "tokens"
        self._measures.set_options(options, value=self._measure)
        self._note.set_content(note(whole))
        self._note.set_visibility(whole.rehearsed_usd > 0)
        self._tiles.set_content(tiles(self._report))
        self._limits.set_content(limits(budget, month))
        self._paint()

    def _paint(self) -> None:
        some = self._report.whole.requests > 0
        for part in (self._panel, self._tables, self._tiles):
            part.set_visibility(some)
        self._empty.set_visibility(not some)
        if some:
            self._chart.set_content(drawn(self._report, self._by, self._measure))
            self._tables.set_content(tables(self._report))

    async def _choose_days(self, event: Any) -> None:
        self._days = int(event.value or self._days)
        await self._read()

    def _choose_by(self, event: Any) -> None:
        self._by = event.value or self._by
        self._paint()

    def _choose_measure(self, event: Any) -> None:
        if event.value and event.value != self._measure:
            self._measure = event.value
            self._paint()


def note(whole: Sums) -> str:
    """What the rehearsal model did, said plainly."""
    return (
        f"<b>Rehearsed: {parts.usd(whole.rehearsed_usd)}.</b> The rehearsal model's answers follow"
        " a script and nobody pays for them: that is what a provider would have charged. It counts"
        " in no limit and in no cost below; its calls and tokens are among the others."
    )


def tiles(report: Report) -> str:
    """The figures of the whole range."""
    whole = report.whole
    read = whole.input_tokens + whole.cache_read_tokens + whole.cache_write_tokens
    daily = whole.cost_usd / len(report.days)
    return (
        parts.tile("Cost", parts.usd(whole.cost_usd), f"{parts.usd(daily)} a day")
        + parts.tile("Model calls", parts.count(whole.requests))
        + parts.tile("Tokens read", parts.count(read))
        + parts.tile("Tokens written", parts.count(whole.output_tokens))
        + parts.tile("Read from cache", f"{whole.cached:.0%}", "of all tokens read")
    )


def limits(budget: spending.BudgetState, month: spending.Month) -> str:
    """Today and this month against what may be spent."""
    hard = budget.hard_limit_usd
    part = budget.spent_usd / hard if hard else 1.0
    warn = budget.warning_usd / hard if hard else 0.0
    said = {
        "ok": f"a warning comes at {parts.usd(budget.warning_usd)}",
        "warning": f"above the warning at {parts.usd(budget.warning_usd)}",
        "exceeded": "the limit is reached: no agent calls a model until tomorrow (UTC)",
    }[budget.state]
    most = month.most_usd
    return (
        f'<div class="panel"><div class="line"><b>Today</b><span class="grow"></span><span>'
        f"{parts.usd(budget.spent_usd)} of {parts.usd(hard)}</span></div>"
        f"{parts.meter(part, label='Spent of the limit of the day', warn=warn)}"
        f'<span class="hint">{escape(said)}</span></div>'
        f'<div class="panel"><div class="line"><b>{month.first:%B}</b><span class="grow"></span>'
        f"<span>{parts.usd(month.spent_usd)}</span></div>"
        f"{parts.meter(month.spent_usd / most if most else 1.0, label='Spent in this month')}"
        f'<span class="hint">of {parts.usd(most)}, which the limit of the day allows in a whole'
        " month</span></div>"
    )


def drawn(report: Report, by: spending.By, measure: str) -> str:
    """The bars, and the same as a table for those who cannot see them."""
    name, value, said = MEASURES[measure]
    place = {day: at for at, day in enumerate(report.days)}
    series: dict[str, list[float]] = {}
    for one in report.slices[by]:
        values = series.setdefault(one.name, [0.0] * len(place))
        values[place[one.day]] += value(one.sums)
    label = f"{name} a day by {by}, {report.first:%d %b} to {report.last:%d %b}"
    rows = "".join(
        f"<tr><td>{day:%Y-%m-%d}</td>"
        + "".join(f'<td class="num">{escape(said(values[at]))}</td>' for values in series.values())
        + "</tr>"
        for at, day in enumerate(report.days)
        if any(values[at] for values in series.values())
    )
    head = "".join(f'<th scope="col" class="num">{escape(one)}</th>' for one in series)
    return shown(
        bars.chart(report.days, series, label=label, said=said)
        + '<details class="figures"><summary>As a table</summary><div class="scroll"><table>'
        f'<thead><tr><th scope="col">Day</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
        "</div></details>"
    )


def tables(report: Report) -> str:
    """Agents, models, and the requests that cost most."""
    found = ""
    for title, many in (("Agents", report.agents), ("Models", report.models)):
        rows = "".join(_row(escape(one.name), one.sums) for one in many)
        found += f'<section class="half"><h2>{title}</h2>{_table(title[:-1], rows)}</section>'
    rows = ""
    for task in report.tasks:
        title = " ".join(task.title.split()) or task.task_id[:8]
        title = title if len(title) <= TITLE_CHARS else title[: TITLE_CHARS - 1] + "…"
        link = f'<a href="/tasks/{task.task_id}" dir="auto">{escape(title)}</a>'
        rows += _row(f"{link} {parts.pill(task.status)}", task.sums)
    if rows:
        found += f"<section><h2>Most expensive tasks</h2>{_table('Task', rows)}</section>"
    return shown(found)


def _table(name: str, rows: str) -> str:
    heads = (name, "Cost", "Calls", "Read", "Written", "Cached")
    head = "".join(
        f'<th scope="col"{" class=num" if at else ""}>{one}</th>' for at, one in enumerate(heads)
    )
    return (
        f'<div class="panel flush"><div class="grid"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></div>"
    )


def _row(name: str, sums: Sums) -> str:
    spent = parts.usd(sums.cost_usd)
    if sums.rehearsed_usd > 0:
        spent += (
            f' <small title="rehearsed, nobody pays it">({parts.usd(sums.rehearsed_usd)})</small>'
        )
    read = sums.input_tokens + sums.cache_read_tokens + sums.cache_write_tokens
    cells = {
        "Cost": spent,
        "Calls": parts.count(sums.requests),
        "Read": parts.count(read),
        "Written": parts.count(sums.output_tokens),
        "Cached": f"{sums.cached:.0%}",
    }
    figures = "".join(
        f'<td class="num" data-name="{key}">{value}</td>' for key, value in cells.items()
    )
    return f'<tr><td class="name">{name}</td>{figures}</tr>'
