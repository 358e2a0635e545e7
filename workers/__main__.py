"""`python -m workers rehearsal | embed [score] | score [embed]`: run until SIGTERM or SIGINT."""

from __future__ import annotations

import os
import sys

from base import program

USAGE = "usage: python -m workers rehearsal | embed [score] | score [embed]"
#: How long a compute thread spins for its next piece before it sleeps, in rounds of libgomp. Its
#: own default is some 10 ms, which on a shared machine is taken from everybody else.
SPIN_ROUNDS = "1000"


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
        case _:
            sys.exit(USAGE)


if __name__ == "__main__":
    main()
