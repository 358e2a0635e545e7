"""The root broker: one order through, from its line to its last word.

    line ─▶ shape ─▶ peer ─▶ leave ─▶ turn ─▶ written down ─▶ leave used ─▶ journal ─▶ run ─▶ said

What changes something is done one at a time and only when Redis and the disk hold that it is about
to be; what reads goes beside. Every order ends in one audit event, whatever became of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from pydantic import ValidationError

from base import log
from base.audit import Risk
from base.broker import LINE_MAX_BYTES
from base.errors import (
    AIError,
    BusError,
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    NotRunningError,
)
from base.store import Store
from base.verbs import Ask, By, Nothing, Order, Said, words
from provision import leave, peers, witness
from provision.live import Live
from provision.record import Journal, Trail
from provision.rules import Rules
from provision.verb import Approval, Verb
from provision.witness import Deed

PLAN_S = 60.0
#: Of what may be said about a wrong line.
FAULTS_MAX = 5
KINDS = (InputError, NotFoundError, ForbiddenError, ConflictError)
RISKS: dict[Approval, Risk] = {"none": "low", "admin": "medium", "person": "high"}

Say = Callable[[Said], None]
logger = log.get("broker")


class Broker:
    """`carry_out` an order; `idle` is set while nothing is being changed."""

    def __init__(
        self,
        *,
        rules: Rules,
        verbs: Mapping[str, Verb[Any]],
        store: Store,
        journal: Journal,
        trail: Trail,
        live: Live,
    ) -> None:
        """Raises SettingsError for a rule that does not fit its verb."""
        own = Verb(
            name="broker.verbs",
            request=Nothing,
            approval="none",
            plan=_nothing,
            run=self._verbs,
            alone=False,
        )
        self._rules = rules
        self._known = {name: rules.of(verb) for name, verb in {own.name: own, **verbs}.items()}
        self._store, self._journal = store, journal
        self._trail, self._live = trail, live
        self._turn = asyncio.Lock()
        self._doing = ""
        self.idle = asyncio.Event()
        self.idle.set()

    async def carry_out(self, raw: bytes, deed: Deed, say: Say) -> None:
        """One line of `deed.peer`, to its last word. Raises CancelledError alone."""
        try:
            self._trail.check()
            order, verb, request = self._read(raw, deed)
            deed.by = await peers.speaker(deed.peer, order.by, self._store)
            deed.known = True
            self._may(deed, verb)
            said = Said(id=deed.id, done=True, ok=True)
            if order.dry_run:
                said = said.model_copy(update={"plan": await self._plan(verb, request)})
            elif verb.approval == "none":
                result = await self._run(deed, verb, request, say)
                said = said.model_copy(update={"result": result})
            else:
                result = await self._change(deed, verb, request, say)
                said = said.model_copy(update={"result": result})
            self._end(deed, say, said)
        except AIError as error:
            self._end(deed, say, _refusal(deed.id, error), error)
        except asyncio.CancelledError:
            reason = "stopped: the broker ends" if deed.begun else "withdrawn before it began"
            gone = ConflictError(f"{deed.verb} was {reason}")
            self._end(deed, say, _refusal(deed.id, gone), gone)
            raise
        except Exception as error:
            logger.exception("verb failed inside", verb=deed.verb, run=deed.run)
            inside = ConflictError(f"{deed.verb or 'it'} failed inside: {type(error).__name__}")
            self._end(deed, say, _refusal(deed.id, inside), inside)

    # Before ------------------------------------------------------------------------------------

    def _read(self, raw: bytes, deed: Deed) -> tuple[Order, Verb[Any], Ask]:
        """The order and its request, in its verb's own shape. Raises InputError."""
        try:
            order = Order.model_validate_json(raw)
        except ValidationError as error:
            raise InputError(f"no order: {_faults(error)}") from error
        deed.id, deed.dry_run = order.id, order.dry_run
        deed.verb = order.verb[:100]
        verb = self._known.get(order.verb)
        if verb is None:
            raise InputError(f"no verb {order.verb[:100]!r}; there are: {', '.join(self._known)}")
        deed.risk = RISKS[verb.approval]
        if not self._rules.enabled(verb.name):
            raise ForbiddenError(f"{verb.name} is turned off in the broker's rules")
        try:
            request: Ask = verb.request.model_validate(order.request)
        except ValidationError as error:
            raise InputError(f"{verb.name}: {_faults(error)}") from error
        deed.about = witness.told(words(verb.name, request))
        return order, verb, request

    @staticmethod
    def _may(deed: Deed, verb: Verb[Any]) -> None:
        """Raises ForbiddenError for a person who may not ask for what changes something."""
        by = deed.by
        if by.agent is None and by.role == "user" and verb.alone:
            raise ForbiddenError(f"{verb.name} is for admins")
        if by.agent is None and by.role == "user" and verb.approval != "none":
            raise ForbiddenError(f"{verb.name} is for admins")
        if by.role == "system" and verb.approval == "person":
            raise ForbiddenError(f"{verb.name} is a person's decision each time")

    async def _plan(self, verb: Verb[Any], request: Ask) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(PLAN_S):
                return tuple(await verb.plan(request, self._rules.box))
        except TimeoutError as error:
            raise ConflictError(f"the plan of {verb.name} took more than {PLAN_S:.0f} s") from error

    # Doing -------------------------------------------------------------------------------------

    async def _change(self, deed: Deed, verb: Verb[Any], request: Ask, say: Say) -> dict[str, Any]:
        """What has a rule: written down before, with leave where an agent asks, and in its turn
        when it changes something.
        """
        given = None
        if deed.by.agent is not None:
            given = await leave.find(
                *(self._store, verb.name, request, deed.by, verb.approval),
                rules_give=self._rules.automatic(verb.name),
            )
            deed.root_id = given.request.root_id
        async with self._in_turn(deed, say) if verb.alone else nullcontext():
            try:
                await self._trail.before(witness.audit(deed, "success", "begin", "about to run"))
            except BusError as error:
                why = f"{verb.name} was not done: it could not be written down first: {error}"
                raise NotRunningError(why) from error
            if given is not None:
                await leave.use(self._store, given)
                self._live.tell(witness.used(deed, given))
            if not verb.alone:
                return await self._run(deed, verb, request, say)
            self._journal.begin(deed.run, verb.name, deed.about, deed.who)
            deed.begun = True
            try:
                return await self._run(deed, verb, request, say)
            finally:
                self._journal.end(deed.run)

    async def _run(self, deed: Deed, verb: Verb[Any], request: Ask, say: Say) -> dict[str, Any]:
        async def tell(step: str) -> None:
            shown = witness.step(step)
            say(Said(id=deed.id, step=shown))
            self._live.tell(witness.live(deed, "step", step=shown))

        if verb.alone:
            self._live.tell(witness.live(deed, "started"))
        try:
            async with asyncio.timeout(verb.deadline_s) as limit:
                return await verb.run(request, self._rules.box, deed.by, tell)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise ConflictError(
                f"{verb.name} was stopped: it did not end within {verb.deadline_s:g} s"
            ) from error

    @asynccontextmanager
    async def _in_turn(self, deed: Deed, say: Say) -> AsyncIterator[None]:
        """One at a time, in the order in which they came."""
        if self._turn.locked():
            say(Said(id=deed.id, step=f"waits for {self._doing}"))
        async with self._turn:
            self._doing = f"{deed.verb} {deed.about}".strip()
            self.idle.clear()
            try:
                yield
            finally:
                self.idle.set()

    # After -------------------------------------------------------------------------------------

    def _end(self, deed: Deed, say: Say, said: Said, error: AIError | None = None) -> None:
        """Write down how it ended, then say it. What cannot be written down is said, too."""
        outcome: Any = "success" if error is None else "failure"
        if isinstance(error, ForbiddenError):
            outcome = "denied"
        moment = "dry run" if deed.dry_run else "end"
        try:
            self._trail.after(witness.audit(deed, outcome, moment, str(error or "")))
        except AIError as lost:
            logger.error("audit event lost", verb=deed.verb, run=deed.run, error=str(lost))
        logger.info(
            "order ended", verb=deed.verb, about=deed.about, who=deed.who, run=deed.run,
            outcome=outcome, error=str(error or ""),
        )  # fmt: skip
        if deed.begun:
            reason = {} if error is None else {"step": witness.step(str(error))}
            self._live.tell(witness.live(deed, "ended", ok=error is None, **reason))
        if len(said.model_dump_json()) > LINE_MAX_BYTES - 1:
            said = _refusal(deed.id, ConflictError(f"the answer of {deed.verb} is too long"))
        say(said)

    async def _verbs(self, request: Nothing, box: Any, by: By, tell: Any) -> dict[str, Any]:
        """What can be asked here, of what, and what was left in the middle."""
        return {
            "verbs": [
                {
                    "name": verb.name,
                    "approval": verb.approval,
                    "deadline_s": verb.deadline_s,
                    "changes": verb.alone,
                }
                for verb in self._known.values()
                if self._rules.enabled(verb.name)
            ],
            "units": list(self._rules.box.units),
            "containers": list(self._rules.box.containers),
            "interrupted": list(self._journal.interrupted),
        }


def report(lines: list[dict[str, Any]], trail: Trail) -> None:
    """Write down what the last process left in the middle, by its journal."""
    for line in lines:
        told = {key: line.get(key) for key in ("verb", "about", "who", "at")}
        logger.error("verb was interrupted", **told)
        trail.after(witness.left(line))


async def _nothing(request: Any, box: Any) -> list[str]:
    return ["look, and change nothing"]


def _refusal(order_id: str, error: AIError) -> Said:
    kind = next((one for one in KINDS if isinstance(error, one)), NotRunningError)
    return Said(id=order_id, done=True, error=witness.step(str(error)), kind=kind.__name__)


def _faults(error: ValidationError) -> str:
    found = error.errors(include_input=False, include_url=False)
    told = [
        f"{'.'.join(str(part) for part in one['loc'])}: ".removeprefix(": ")
        + str(one["msg"]).removeprefix("Value error, ")
        for one in found[:FAULTS_MAX]
    ]
    more = len(found) - FAULTS_MAX
    return "; ".join(told) + (f"; and {more} more" if more > 0 else "")
