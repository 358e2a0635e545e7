"""`python -m workers rehearsal | embed [score] | score [embed] | listen`: run until SIGTERM or
SIGINT. `python -m workers fetch NAME` gets a Whisper for `listen` and ends.
"""

from __future__ import annotations

import os
import sys

from base import program

USAGE = "usage: python -m workers rehearsal | embed [score] | score [embed] | listen | fetch NAME"
#: How long a compute thread spins for its next piece before it sleeps, in rounds of libgomp. Its
#: own default is some 10 ms, which on a shared machine is taken from everybody else; a twentieth of
#: it wakes too late for the next product of a short text on two threads (9 ms, else 6 to 7).
SPIN_ROUNDS = "20000"


def main() -> None:
    match sys.argv[1:]:
        case ["rehearsal"]:
            from workers import rehearsal

            program.run("rehearsal", rehearsal.main)
        case [("embed" | "score"), *_] as names if len(set(names)) == len(names) and set(names) <= {
            "embed",
            "score",
        }:
            os.environ.setdefault("GOMP_SPINCOUNT", SPIN_ROUNDS)
            from workers import serve

            program.run("workers", serve.main(names))
        case ["listen"]:  # a process of its own: a recording computes for seconds
            os.environ.setdefault("GOMP_SPINCOUNT", SPIN_ROUNDS)
            from workers import serve

            program.run("listen", serve.main(["listen"]))
        case ["fetch", "--", name] | ["fetch", name]:
            from workers import fetch

            fetch.main(name)
        case _:
            sys.exit(USAGE)


if __name__ == "__main__":
    main()
