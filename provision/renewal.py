"""`python -m provision --renew`: what the hourly timer runs. It asks the broker, like everybody, so
that nothing else is changed meanwhile and the audit has its row.
"""

from __future__ import annotations

import sys
from pathlib import Path

from base.broker import call
from base.deadline import Deadline
from base.errors import AIError, NotRunningError
from base.verbs import By, CertRenew

#: A little more than the verb's own deadline and the wait for its turn.
RENEW_S = 4_500.0
EXIT_FAILED, EXIT_NOT_RUNNING = 1, 3


async def renew(socket: Path | None) -> int:
    """The exit code: 0 when every certificate that was due was renewed, 1 when one was not, 3
    when no broker answers. What is said reaches the journal.
    """
    try:
        said = await call(
            socket,
            "cert.renew",
            CertRenew(),
            by=By(role="system"),
            deadline=Deadline.after(RENEW_S),
            tell=_tell,
        )
    except AIError as error:
        print(error, file=sys.stderr)
        return EXIT_NOT_RUNNING if isinstance(error, NotRunningError) else EXIT_FAILED
    renewed, failed = said.result.get("renewed", []), said.result.get("failed", {})
    for cert in renewed:
        print(f"renewed {cert['domain']}, good until {cert['not_after']}")
    for domain, why in failed.items():
        print(f"{domain}: {why}", file=sys.stderr)
    if not renewed and not failed:
        print("nothing is due")
    return EXIT_FAILED if failed else 0


async def _tell(step: str) -> None:
    print(step)
