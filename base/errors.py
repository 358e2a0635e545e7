"""Every error of the product, in one tree.

AIError
├── SettingsError          configuration is wrong; all faults at once
├── InputError             what a person or program asked for cannot be (HTTP 422 / exit 2)
│   ├── UnknownAgentError  no such agent in the roster
│   └── FieldsError        fields of a file that are wrong, each named
├── NotFoundError          no such thing, or not yours (HTTP 404)
├── UnauthenticatedError   nobody known is asking (HTTP 401)
├── ForbiddenError         yours to see, not to do (HTTP 403)
├── ConflictError          the thing's state does not allow it (HTTP 409)
│   └── LocalModeError     only the appliance can do this
├── TooManyError           asked too often; says when to ask again (HTTP 429)
├── DecodeError            bytes on the wire that are no message; keeps them
├── BusError               Redis cannot be reached or refused
│   └── NoAnswerError      nobody answered a request before its deadline
├── StoreError             PostgreSQL cannot be reached or refused
│   └── DamagedError       a file of the archive cannot be read
├── WarmError              the vector store cannot be reached or refused
│   └── TornError          what it holds cannot be trusted: make it again from the cards
├── StaleLeaseError        the task was given to somebody else meanwhile; stop working on it
├── ModelError             the model provider said no for good, or retries are used up
│   ├── SpendLimitError    a spend cap was reached: never retried
│   └── BudgetError        the task's own budget is used up
├── PlanError              a plan that cannot be run; lists its faults
├── SandboxError           the sandbox cannot be made or broke: tools refuse
├── McpError               an MCP server cannot be reached, broke, or made no sense
├── BackupError            a backup cannot be made, read or trusted
├── WindowsError           tmux cannot be reached or refused
└── NotRunningError        a service of ours that should be up is not (exit 3)

Raise `from` the cause. Catch only what you can answer. An error never becomes a success.
"""

from __future__ import annotations

from collections.abc import Sequence


class AIError(Exception):
    """Root of the tree. `str(error)` is one line that a person can act on."""


class SettingsError(AIError):
    """Configuration is wrong. `faults` names every one of them, not only the first."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("settings: " + "; ".join(self.faults))


class InputError(AIError):
    """The request cannot be carried out as given."""


class UnknownAgentError(InputError):
    """No agent of that name. `known` lists those that there are."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name = name
        self.known = tuple(known)
        super().__init__(f"no agent named {name!r}; there are: {', '.join(self.known)}")


class FieldsError(InputError):
    """What is wrong in a file: `fields` has (file, dotted key or "", what is wrong) of each."""

    def __init__(self, fields: Sequence[tuple[str, str, str]]) -> None:
        self.fields = tuple(fields)
        told = (": ".join(part for part in field if part) for field in self.fields)
        super().__init__("; ".join(told))


class NotFoundError(AIError):
    """No such thing, or it belongs to somebody else (the two look the same on purpose)."""


class UnauthenticatedError(AIError):
    """No token, or one that is wrong, expired or revoked."""


class ForbiddenError(AIError):
    """The caller may see the thing but not do this to it."""


class ConflictError(AIError):
    """The thing's present state does not allow the request."""


class LocalModeError(ConflictError):
    """The appliance can do this; this installation runs in local mode. Says what is missing."""

    code = "not-available-in-local-mode"


class TooManyError(AIError):
    """Asked too often. `retry_after_s` is when it makes sense again."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class DecodeError(AIError):
    """Bytes on the wire that are no message. `raw` keeps them for the dead letter."""

    def __init__(self, reason: str, raw: bytes) -> None:
        self.raw = raw
        super().__init__(f"undecodable message: {reason}")


class BusError(AIError):
    """Redis cannot be reached or refused the command."""


class NoAnswerError(BusError):
    """Nobody answered a request before its deadline."""


class StoreError(AIError):
    """PostgreSQL cannot be reached or refused the statement."""


class DamagedError(StoreError):
    """A file of the archive cannot be read any more; the other files can."""


class WarmError(AIError):
    """The vector store cannot be reached or refused."""


class TornError(WarmError):
    """What the vector store holds cannot be read or trusted; make it again from the cards."""


class StaleLeaseError(AIError):
    """The task's epoch moved on: somebody else has it now. Stop, publish nothing."""


class ModelError(AIError):
    """The model provider refused for good, or every retry failed."""


class SpendLimitError(ModelError):
    """A spend cap at the provider was reached. Never retried."""


class BudgetError(ModelError):
    """The task's own reserved budget does not cover another model call."""


class PlanError(AIError):
    """A plan that cannot be run. `faults` names each reason."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("plan refused: " + "; ".join(self.faults))


class SandboxError(AIError):
    """The sandbox cannot be made or broke. Tools that execute must refuse."""


class McpError(AIError):
    """An MCP server cannot be started or reached, broke, or answered what makes no sense."""


class BackupError(AIError):
    """A backup cannot be made, read, trusted or restored; what was there before is still there."""


class WindowsError(AIError):
    """tmux cannot be reached or refused the command."""


class NotRunningError(AIError):
    """A service of ours that should be up is not."""
