"""One task at work: its order, its journal, and everything that follows from the journal.

`add` is the only way anything changes: it writes the record and folds it in, so a task that was
killed stands, once its journal is read again, where it stood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from agents import mcp_tools
from agents.tool_shape import Tool
from agents.tools import TOOLS
from base.levels import Level, Levels
from base.messages import Attached, Checked, Criterion, Outcome, Phase, Usage, Verdict, WorkOrder
from base.roster import AgentSpec
from base.settings import Settings
from pai import phases
from pai.phases import State
from pai.record import Journal, Prd, Record, folder_name

SOURCE_CHARS = 300
#: Records after which an earlier reply has been dealt with.
SETTLES = frozenset({"framed", "worked", "measured", "traced", "reflected"})


class Task:
    """`records` is the chapter since the order was last given to this or another agent."""

    def __init__(
        self,
        order: WorkOrder,
        spec: AgentSpec,
        level: Level,
        folder: Path,
        workspace: Path,
        journal: Journal,
    ) -> None:
        self.order = order
        self.spec = spec
        self.level = level
        self.folder = folder
        self.workspace = workspace
        self.records: list[Record] = []
        self.state = State(effort=order.effort)
        self.criteria: tuple[Criterion, ...] = order.criteria
        self.frame: dict[str, Any] = {}
        self.checked: list[Checked] = []
        self.learned: list[str] = []
        self.spent = Usage()
        self.files: list[str] = []
        self.handed: Record | None = None
        self.end: Outcome | None = None
        self.resumed = False
        self._journal = journal

    @classmethod
    def open(cls, settings: Settings, levels: Levels, order: WorkOrder, spec: AgentSpec) -> Task:
        """Begin or go on. Raises ConflictError while another process works on the task,
        SettingsError when the agent's level is none.
        """
        level = levels.working(spec.level, order.level)
        folder = settings.work / folder_name(order)
        journal, records = Journal.open(folder)
        place = Path(order.workspace)
        if not place.is_absolute():
            place = settings.workspace(order.user_id, order.workspace)
        task = cls(order, spec, level, folder, place, journal)
        start = max((n for n, r in enumerate(records) if r["kind"] == "order"), default=0)
        for record in records[:start]:
            if record["kind"] == "spent":
                task.spent += Usage.model_validate(record["usage"])
        for record in records[start:]:
            task._fold(record)
        if not task.records or task._goes_on(order):
            spent = task.spent
            task = cls(order, spec, level, folder, place, journal)
            task.spent = spent
            task.add("order", order=order.model_dump(mode="json"))
            if any(record["kind"] == "tainted" for record in records):
                task.taint("the work of an earlier agent")
        else:
            task.resumed = True
            task.add("resumed", epoch=order.epoch, delivery=order.delivery)
        if source := _brought(order):
            task.taint(source)
        return task

    def _goes_on(self, order: WorkOrder) -> bool:
        """Whether `order` begins a new chapter after a handoff: with another agent, or with new
        notes, since the handoff was refused. With the old ones the handoff was never heard of.
        """
        if self.end is None or self.end.handoff_to is None:
            return False
        return self.end.agent != order.agent or order.notes != self.records[0]["order"]["notes"]

    def add(self, kind: str, *, sync: bool = False, **fields: Any) -> Record:
        """Write a record and fold it in; `sync`: it is on the disk when this returns."""
        record = self._journal.append({"kind": kind, **fields}, sync=sync)
        self._fold(record)
        return record

    def close(self) -> None:
        self._journal.close()

    def _fold(self, record: Record) -> None:
        self.records.append(record)
        match record["kind"]:
            case "spent":
                self.spent += Usage.model_validate(record["usage"])
            case "result":
                self.files += [path for path in record["files"] if path not in self.files]
            case "framed":
                given = {key: value for key, value in record["frame"].items() if value}
                self.frame = {**self.frame, **given}
                if not self.state.frozen:
                    self.criteria = tuple(map(Criterion.model_validate, record["criteria"]))
            case "measured":
                self.checked = [Checked.model_validate(one) for one in record["checked"]]
            case "learned":
                self.learned = list(record["lines"])
            case "handoff":
                self.handed = record
            case "end":
                self.end = Outcome.model_validate(record["outcome"])
        if (fact := _fact(record)) is not None:
            self.state = phases.advance(self.state, fact)

    # What the records amount to ------------------------------------------------------------

    @property
    def tainted(self) -> bool:
        """Whether untrusted text came in: from then on nothing is approved automatically."""
        return any(record["kind"] == "tainted" for record in self.records)

    @property
    def known(self) -> Mapping[str, Tool]:
        """Every tool there is for this task, by name: ours and what its servers offered."""
        return {**TOOLS, **mcp_tools.declared(self.records)}

    @property
    def offered(self) -> list[str]:
        """The tools that are this agent's, by name, whatever their level."""
        own = [name for name in self.spec.tools if name in TOOLS]
        return own + [name for name in self.known if name not in TOOLS]

    @property
    def granted(self) -> tuple[str, ...]:
        """The "host:port" that this task may reach besides those of its level."""
        return tuple(dict.fromkeys(r["host"] for r in self.records if r["kind"] == "granted"))

    @property
    def goals(self) -> str:
        """The owner's goals as they were when the task began."""
        return next((str(r["text"]) for r in self.records if r["kind"] == "goals"), "")

    def taint(self, source: str) -> None:
        """Note that untrusted text of `source` came in, once for each source."""
        source = source[:SOURCE_CHARS]
        if not any(r["kind"] == "tainted" and r["source"] == source for r in self.records):
            self.add("tainted", sync=True, source=source)

    @property
    def recalled(self) -> Record | None:
        """What memory told this task at its start; None: not asked yet."""
        return next((r for r in self.records if r["kind"] == "recalled"), None)

    def approval(self, call_id: str) -> Record | None:
        """The `asked` record of a call for which an approval was asked."""
        asked = (r for r in self.records if r["kind"] == "asked" and r["call_id"] == call_id)
        return next(asked, None)

    @property
    def phase(self) -> Phase | None:
        """The last phase of the step that is next."""
        covered = phases.next_step(self.state).phases
        return covered[-1] if covered else None

    def told(self, key: str) -> bool:
        """Whether the message of that key was said."""
        return any(r["kind"] == "told" and r["key"] == key for r in self.records)

    def tell(self, key: str, text: str, files: Sequence[Attached] = ()) -> None:
        """Say `text` to the model with the next call, after `files`, once for each key."""
        if not self.told(key):
            given: dict[str, Any] = {"files": [one.model_dump() for one in files]} if files else {}
            self.add("told", key=key, text=text, **given)

    def pending(self, purpose: str) -> Record | None:
        """The last reply, when it was to `purpose` and is not fully dealt with."""
        reply = next((r for r in reversed(self.records) if r["kind"] == "reply"), None)
        if reply is None or reply["purpose"] != purpose:
            return None
        after = self.records[_last(self.records, reply) + 1 :]
        if any(record["kind"] in SETTLES for record in after):
            return None
        if purpose in {"frame", "trace", "reflect"}:
            return None if any(r["kind"] == "told" for r in after) else reply
        if calls(reply):
            return reply if self.unanswered(reply) else None
        return None if any(r["kind"] in {"told", "steer"} for r in after) else reply

    def unanswered(self, reply: Record) -> list[dict[str, Any]]:
        """The tool calls of `reply` that have no result yet."""
        done = {r["call_id"] for r in self.records if r["kind"] == "result"}
        return [call for call in calls(reply) if call["id"] not in done]

    def intended(self, call_id: str) -> bool:
        """Whether the call was begun: its effect is unknown unless there is a result."""
        return any(r["kind"] == "intent" and r["call_id"] == call_id for r in self.records)

    def tool_steps(self) -> int:
        """How many tools were called, refused calls included."""
        kinds = {"intent", "result"}
        return len({record["call_id"] for record in self.records if record["kind"] in kinds})

    def answer(self) -> str:
        """The text of the last reply that ended EXECUTE; "" when there is none."""
        for record in reversed(self.records):
            if record["kind"] == "reply" and record["purpose"] in {"execute", "minimal"}:
                return "" if calls(record) else reply_text(record)
        return ""

    def replies(self) -> int:
        return sum(record["kind"] == "reply" for record in self.records)

    def write_prd(self, phase: str) -> None:
        """Bring PRD.md up to date; minimal effort has none."""
        if not self.state.tier.frames:
            return
        Prd(
            order=self.order,
            phase=phase,
            started=datetime.fromisoformat(self.records[0]["at"]),
            frame=self.frame,
            criteria=self.criteria,
            checked=self.checked,
            decisions=[str(one) for one in _list(self.frame.get("decisions"))]
            + [
                f"back to {r['phase']}: {r['cause']}" for r in self.records if r["kind"] == "traced"
            ],
            learned=self.learned,
            tainted=self.tainted,
        ).write(self.folder)


def calls(reply: Record) -> list[dict[str, Any]]:
    """The tool calls of a reply record, in order."""
    return [block for block in reply["content"] if block["type"] == "tool_use"]


def reply_text(reply: Record) -> str:
    return "".join(block["text"] for block in reply["content"] if block["type"] == "text")


def _brought(order: WorkOrder) -> str:
    """What untrusted text an order comes with; "" for none."""
    if order.tainted:
        return "the order"
    return next((f"the result of {one.agent}" for one in order.inputs if one.tainted), "")


def _last(records: list[Record], record: Record) -> int:
    return max(number for number, one in enumerate(records) if one is record)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value] if value else []


def _fact(record: Record) -> phases.Fact | None:
    """The state machine's view of a record; None for one that moves nothing."""
    match record["kind"]:
        case "framed":
            return phases.Framed(gate_faults=tuple(record["gate_faults"]))
        case "frozen":
            return phases.Frozen()
        case "worked":
            return phases.Worked()
        case "measured":
            return phases.Measured(
                verdicts=tuple(Verdict(one["verdict"]) for one in record["checked"])
            )
        case "traced":
            return phases.Traced(phase=Phase(record["phase"]))
        case "reflected":
            return phases.Reflected()
        case "learned":
            return phases.Learned()
        case "end":
            return phases.Ended()
    return None
