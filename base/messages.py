"""What travels: one envelope, and one shape for each payload.

All models are frozen. `encode` and `decode` are the only way on and off the wire; the schema
number rises when a field changes its meaning, and a reader refuses a number it does not know.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from base.errors import DecodeError, InputError

SCHEMA = 1
BROADCAST_TARGET = "*"


class Wire(BaseModel):
    """Common form of everything on the wire: frozen, unknown fields dropped."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class Type(StrEnum):
    """What a message is for (the seed plan's six)."""

    TASK = "task"
    RESULT = "result"
    HANDOFF = "handoff"
    QUERY = "query"
    HEARTBEAT = "heartbeat"
    LEARN = "learn"


class Phase(StrEnum):
    """The seven phases of the Algorithm, in order."""

    OBSERVE = "OBSERVE"
    THINK = "THINK"
    PLAN = "PLAN"
    BUILD = "BUILD"
    EXECUTE = "EXECUTE"
    VERIFY = "VERIFY"
    LEARN = "LEARN"


class Effort(StrEnum):
    """How much of the Algorithm a task gets."""

    MINIMAL = "minimal"
    STANDARD = "standard"
    EXTENDED = "extended"
    DEEP = "deep"


class Status(StrEnum):
    """Task states; the table of allowed transitions is in `supervisor/tasks.py`."""

    PENDING = "pending"
    ASSIGNED = "assigned"
    IN_PROGRESS = "in_progress"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in {Status.COMPLETED, Status.FAILED, Status.CANCELLED}


class Pai(Wire):
    """Where in the Algorithm the sender stands."""

    algorithm_phase: Phase | None = None
    verification_criteria: tuple[dict[str, Any], ...] = ()
    learning_signals: tuple[dict[str, Any], ...] = ()


class Message(Wire):
    """The envelope of every work stream. `id` makes a second delivery recognisable."""

    id: str = Field(default_factory=lambda: str(uuid.uuid4()))
    timestamp: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    source: str
    target: str
    type: Type
    priority: int = Field(default=5, ge=1, le=10)
    payload: dict[str, Any] = Field(default_factory=dict)
    pai: Pai = Pai()
    schema_number: int = Field(default=SCHEMA, alias="schema")

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


def encode(message: Wire) -> bytes:
    """JSON bytes. Raises InputError for what JSON cannot say, such as half a surrogate pair."""
    try:
        return to_json(message, by_alias=True)
    except PydanticSerializationError as error:
        raise InputError(f"the message cannot be encoded: {error}") from error


def decode(raw: bytes) -> Message:
    """The message in `raw`. Raises DecodeError, which keeps the bytes."""
    try:
        message = Message.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DecodeError(f"{where}: {first['msg']}" if where else first["msg"], raw) from None
    if message.schema_number != SCHEMA:
        raise DecodeError(f"schema {message.schema_number}, this program reads {SCHEMA}", raw)
    return message


# Criteria ----------------------------------------------------------------------------------


class Probe(Wire):
    """How the system itself checks a criterion.

    command: `command` run by the sandbox's shell in the workspace, passes on exit 0 (and, if
    `pattern` is set, when its output matches); file: `path` exists; pattern: the regular
    expression `pattern` is found in the file `path`; http: GET `url` (loopback only) answers
    `expect_status`; judge: a model answers `question` from the evidence, when nothing else can.
    """

    kind: Literal["command", "file", "pattern", "http", "judge"]
    command: str | None = None
    path: str | None = None
    pattern: str | None = None
    url: str | None = None
    expect_status: int = 200
    question: str | None = None


class Criterion(Wire):
    """One Ideal State Criterion: `ISC-3`, or `ISC-A-1` for what must not be."""

    id: str
    text: str
    probe: Probe


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    UNMEASURED = "unmeasured"


class Checked(Wire):
    """A criterion after its probe ran (or could not)."""

    id: str
    text: str
    verdict: Verdict
    evidence: str = ""


# Work ---------------------------------------------------------------------------------------


class Budget(Wire):
    """What a task may spend: charged tokens (see Usage) and dollars. Reserved before it starts."""

    tokens: int = Field(ge=0)
    usd: float = Field(ge=0)


class Usage(Wire):
    """What model calls spent. Cached tokens are counted apart from `input_tokens`."""

    model_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_usd: float = 0.0

    @property
    def tokens(self) -> int:
        return (
            self.input_tokens
            + self.output_tokens
            + self.cache_read_tokens
            + self.cache_write_tokens
        )

    @property
    def charged_tokens(self) -> int:
        """What a budget counts: a cached token is read again at each turn of a tool loop, at
        about a tenth of the price of a new one, and counts as a tenth.
        """
        return self.tokens - self.cache_read_tokens + self.cache_read_tokens // 10

    def __add__(self, other: Usage) -> Usage:
        mine, theirs = self.model_dump(), other.model_dump()
        return Usage(**{key: mine[key] + theirs[key] for key in mine})


class Turn(Wire):
    """An earlier message of the conversation."""

    role: Literal["user", "assistant"]
    content: str


class Attached(Wire):
    """A file that came with a message. `path` is below the folder of attachments; what is in it
    is the person's material, never an instruction.
    """

    id: str
    name: str
    kind: Literal["image", "pdf", "text"]
    media_type: str
    size_bytes: int
    path: str


class Input(Wire):
    """What a task that this one depends on found."""

    task_id: str
    agent: str
    instruction: str
    answer: str
    tainted: bool = False


class Aside(Wire):
    """What a hook adds. trusted: the owner's word; else material to judge."""

    text: str
    trusted: bool = False


class WorkOrder(Wire):
    """Payload on `agent:<name>` (type task): all that an agent needs to start or resume."""

    task_id: str
    root_id: str
    epoch: int
    delivery: int = 1
    agent: str
    user_id: str
    conversation_id: str
    created_at: datetime
    instruction: str
    request: str
    history: tuple[Turn, ...] = ()
    inputs: tuple[Input, ...] = ()
    notes: str = ""
    criteria: tuple[Criterion, ...] = ()
    effort: Effort = Effort.STANDARD
    budget: Budget
    workspace: str
    level: int = 0
    tainted: bool = False  # it stands on text from outside: no automatic approval
    answer_message_id: str | None = None  # set: the agent's text is the user's answer; stream it
    asides: tuple[Aside, ...] = ()  # what the owner's hooks added to the request
    attachments: tuple[Attached, ...] = ()  # of the message and of those before it in its branch


class Outcome(Wire):
    """Payload on `results`: how a work order ended. Refused when `epoch` is stale.

    status waiting = paused by a person, in_progress = resumed, pending = given back since the
    agent's process was asked to end; none of them ends the task.
    handoff_to names the agent that should take the task over (then status is `waiting`).
    """

    task_id: str
    root_id: str
    epoch: int
    agent: str
    status: Status
    answer: str = ""
    error: str | None = None
    criteria: tuple[Checked, ...] = ()
    files: tuple[str, ...] = ()
    usage: Usage = Usage()
    rounds: int = 0
    handoff_to: str | None = None
    notes: str = ""
    tainted: bool = False


#: The provider's name in a ModelCall when nobody charges for it.
UNPAID_PROVIDER = "rehearsal"


class ModelCall(Wire):
    """Payload on `usage`: one model call that ended, for the api_usage table. `id` is its key.

    The rehearsal model's calls carry what a provider would have charged, and count in no limit.
    """

    id: str
    task_id: str | None
    agent: str
    purpose: str
    provider: str
    model: str
    usage: Usage
    latency_ms: int

    @property
    def paid(self) -> bool:
        return self.provider != UNPAID_PROVIDER


class Heartbeat(Wire):
    """Payload on `heartbeats`, every `heartbeat_s`. Renews the lease of (task_id, epoch)."""

    agent: str
    pid: int
    status: Literal["starting", "running", "idle", "busy", "stopping", "stopped", "error"]
    paused: bool = False
    task_id: str | None = None
    epoch: int | None = None
    phase: Phase | None = None
    rss_bytes: int = 0


class Control(Wire):
    """Payload on `control:<name>`: what a person or the supervisor tells an agent now.

    steer: `text` joins the running task; cancel: stop task `task_id` (None: whichever runs;
    `epoch` set: only if the agent holds that epoch); pause, resume: at the next safe point;
    approval: the request `text` (an approval's id) of task `task_id` was decided.
    """

    verb: Literal["steer", "pause", "resume", "cancel", "approval"]
    task_id: str | None = None
    epoch: int | None = None
    text: str = ""


class Kind(StrEnum):
    """What an event tells. See `Event.data` for each."""

    MESSAGE = "message"
    CHUNK = "chunk"
    PLAN = "plan"
    TASK = "task"
    AGENT = "agent"
    TEXT = "text"
    TOOL = "tool"
    CRITERION = "criterion"
    APPROVAL = "approval"
    BROKER = "broker"


class Event(Wire):
    """One entry of the live view. Its stream id is the cursor that a client resumes from.

    data by kind:
    message: message_id, role, content, agent (a whole message that is now in the record);
    chunk: message_id, attempt, seq, content (a higher attempt starts the message anew);
    plan: subtasks [{id, key, agent, instruction, depends_on, effort, criteria}];
    task: status, phase, progress (0..1), title, error, cost_usd;
    agent: status, paused, task_id;
    text: content (what an agent says while it works);
    tool: name, call_id, state (started|ended), summary, ok;
    criterion: the fields of Checked;
    approval: id, status, agent, tool, risk, sentence, level, expires_at, decided_by, decided_via;
    broker: run, verb, about, state (started|step|ended), step, ok (once it has ended).
    """

    kind: Kind
    agent: str
    user_id: str | None = None
    conversation_id: str | None = None
    root_id: str | None = None
    task_id: str | None = None
    timestamp: datetime = Field(default_factory=lambda: datetime.now(UTC))
    data: dict[str, Any] = Field(default_factory=dict)


def answer_id(root_id: str) -> str:
    """The id of the message that answers a root task: the same whoever computes it."""
    return str(uuid.uuid5(uuid.UUID(root_id), "answer"))
