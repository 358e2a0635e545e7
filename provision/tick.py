"""`python -m provision.tick VERB`: what a timer asks of the broker, as this machine itself.

Verbs that need to be told nothing alone. Steps go to the journal; exit code 1: it failed, 2: there
is no such verb, 3: no broker answers.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from pydantic import ValidationError

from base import broker
from base.deadline import Deadline
from base.errors import AIError, LocalModeError, NotRunningError
from base.redact import redact
from base.terminal import neutral
from base.verbs import VERBS, By

LIMIT_S = 1_800.0
EXIT_FAILED, EXIT_USAGE, EXIT_NOT_RUNNING = 1, 2, 3


async def ask(verb: str, socket: Path | None) -> int:
    """The exit code."""
    try:
        request = VERBS[verb]()
    except (KeyError, ValidationError):
        return _complain(f"no verb that needs to be told nothing: {verb!r}", EXIT_USAGE)

    async def tell(step: str) -> None:
        print(neutral(redact(step)), flush=True)

    try:
        by, deadline = By(role="system"), Deadline.after(LIMIT_S)
        said = await broker.call(socket, verb, request, by=by, deadline=deadline, tell=tell)
    except (NotRunningError, LocalModeError) as error:
        return _complain(str(error), EXIT_NOT_RUNNING)
    except AIError as error:
        return _complain(str(error), EXIT_FAILED)
    print(neutral(redact(f"{verb}: {said.model_dump_json(include={'result'})}")))
    return 0


def main() -> int:
    if len(sys.argv) != 2:
        return _complain("usage: python -m provision.tick VERB", EXIT_USAGE)
    socket = os.environ.get("AI_INFRA_BROKER")
    return asyncio.run(ask(sys.argv[1], Path(socket) if socket else None))


def _complain(words: str, code: int) -> int:
    print(neutral(redact(words)), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
