"""How much is remembered and where, against the limits, and how long recall takes."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from nicegui import ui

from base.errors import AIError
from base.plural import counted
from pai.shapes import Collection, Tier
from portal import memory
from portal.auth import Caller
from portal.desk import Desk
from portal.pages import parts
from portal.pages.marks import shown


class Counts:
    """One's own figures; for an admin those of everybody, too."""

    def __init__(self, desk: Desk, caller: Caller) -> None:
        self._desk = desk
        self._caller = caller
        self._everybody = False

    def build(self) -> None:
        """Make it inside the present element."""
        if self._caller.admin:
            ui.toggle(
                {False: "Yours", True: "Everybody's"}, value=False, on_change=self._choose
            ).props('no-caps unelevated dense aria-label="Whose"')
        self._said = ui.html("").classes("counts")

    async def read(self) -> None:
        """Ask the keeper."""
        try:
            found = await memory.stats(self._desk, self._caller, everybody=self._everybody)
            self._said.set_content(told(found))
        except AIError as error:
            self._said.set_content(
                f'<p class="hint">Memory does not answer: {escape(str(error))}</p>'
            )

    async def _choose(self, event: Any) -> None:
        self._everybody = bool(event.value)
        await self.read()


def told(found: Mapping[str, Any]) -> str:
    """The keeper's figures as HTML."""
    tiers, limits, recall = found["tiers"], found["limits"], found["recall_ms"]
    everybody = "archive_bytes" in found
    totals = {tier: sum(one["count"] for one in tiers[tier].values()) for tier in tiers}
    p50, p95 = recall["p50"], recall["p95"]
    tiles = (
        parts.tile("Memories", parts.count(sum(totals.values())))
        + parts.tile("Recall, median", f"{p50:.0f} ms" if p50 is not None else "–", _of(recall))
        + parts.tile("Recall, 95 %", f"{p95:.0f} ms" if p95 is not None else "–")
    )
    if everybody:
        worker = found.get("worker")
        tiles += parts.tile("Wait for a vector", parts.count(_waiting(found["pending"])))
        model = str((worker or {}).get("model") or found.get("model") or "none")
        tiles += parts.tile("Embedding", "at work" if worker else "away", model)
    return shown(
        f'<div class="tiles">{tiles}</div>{_limits(found, totals, limits, everybody)}'
        f"{_table(tiers, totals)}"
    )


def _of(recall: Mapping[str, Any]) -> str:
    return (
        f"of the last {counted(recall['count'], 'search', 'searches')}"
        if recall["count"]
        else "nobody searched yet"
    )


def _waiting(pending: Mapping[str, int]) -> int:
    return pending["place"] + pending["embed"]


def _limits(
    found: Mapping[str, Any], totals: Mapping[str, int], limits: Mapping[str, int], everybody: bool
) -> str:
    warm, whose = totals[Tier.WARM.value], "everybody's" if everybody else "yours"
    rows = [("Warm", warm / limits["warm"], f"{warm:,} {whose} of {limits['warm']:,} in all")]
    if everybody:
        used, most = found["archive_bytes"], limits["cold_bytes"]
        said = f"{parts.size(used)} of {parts.size(most)}"
        rows.append(("Archive", used / most if most else 1.0, said))
    lines = "".join(
        f'<div class="limit"><b>{name}</b>{parts.meter(part, label=f"{name} memory")}'
        f"<span>{said}</span></div>"
        for name, part, said in rows
    )
    hot = f"Hot holds at most {limits['hot_per_agent']:,} an agent; the rest move on to warm."
    return f'<div class="panel">{lines}<span class="hint">{hot}</span></div>'


def _table(tiers: Mapping[str, Any], totals: Mapping[str, int]) -> str:
    heads = "".join(
        f'<th scope="col" class="num">{one.value.capitalize()}</th>' for one in Collection
    )
    rows = "".join(
        f'<tr><td data-name="Tier">{tier.capitalize()}</td>'
        + "".join(
            f'<td class="num" data-name="{name.capitalize()}">{one["count"]:,}</td>'
            for name, one in many.items()
        )
        + f'<td class="num" data-name="All">{totals[tier]:,}</td>'
        + f'<td class="num" data-name="Text">'
        f"{parts.size(sum(one['size_bytes'] for one in many.values()))}</td></tr>"
        for tier, many in tiers.items()
    )
    return (
        f'<div class="panel flush"><div class="grid"><table><thead><tr><th scope="col">Tier</th>'
        f'{heads}<th scope="col" class="num">All</th><th scope="col" class="num">Text</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div></div>"
    )
