"""Who may use what we write: we alone, or, on the appliance, the programs of its group, too.

There each program has an account of its own. The installer makes the folders, with the group
`ai-infra` handed down to all that is made in them; what must stay with one account lies elsewhere.
"""

from __future__ import annotations

import os
import pwd

#: From the environment that the units give, not from a file that a page can write.
SHARED = os.environ.get("AI_INFRA_APPLIANCE", "").lower() in {"1", "true", "yes"}
FOLDER = 0o770 if SHARED else 0o700
FILE = 0o640 if SHARED else 0o600
#: Of files that several programs append to or lock.
COMMON = 0o660 if SHARED else 0o600
#: What of a mode makes a secret open to others.
OPEN_FILE = 0o137 if SHARED else 0o177
OPEN_FOLDER = 0o007 if SHARED else 0o077
#: The accounts that write what people set: the agents' own, and the portal's.
ACCOUNTS = ("ai", "ai-api")


def owners() -> frozenset[int]:
    """The user ids whose files count as the owner's own words."""
    found = {os.geteuid(), 0}
    for name in ACCOUNTS if SHARED else ():
        try:
            found.add(pwd.getpwnam(name).pw_uid)
        except KeyError:
            continue
    return frozenset(found)
