"""What a program that failed is quoted with."""

from __future__ import annotations

import pytest

from base.backup.command import Done

IN_USE = 'ERROR:  database "ai_infra" is being accessed by other users'
PSQL = f"{IN_USE}\nDETAIL:  There is 1 other session using the database.\n"
RESTORE = """pg_restore: error: could not execute query: ERROR:  role "x" does not exist
Command was: ALTER TABLE public.y OWNER TO x;
"""


@pytest.mark.parametrize(
    ("err", "out", "words"),
    [
        ("one\ntwo\n\n", "three", "two"),
        ("", "only this\n", "only this"),
        (PSQL, "", IN_USE),
        (RESTORE, "", RESTORE.splitlines()[0]),
        ("", "", "exit code 3"),
    ],
)
def test_what_says_why_is_quoted(err: str, out: str, words: str) -> None:
    assert Done(code=3, out=out, err=err).words == words
