"""Signals: weighed by the plan's table, felt by just the memories that were used, once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from keeper_world import World, memory

from base import streams
from base.errors import ConflictError, InputError
from pai import cards, hearing, keeper, signals
from pai.shapes import SHARED, Query, Signal, SignalKind, Told

AT = datetime(2026, 11, 2, 12, tzinfo=UTC)


def signal(kind: SignalKind = SignalKind.TASK_SUCCESS, **fields: Any) -> Signal:
    return Signal(**({"kind": kind, "user_id": "ann", "root_id": "r1", "at": AT} | fields))


def told(one: Signal, **fields: Any) -> Told:
    return Told(**({"verb": "signal", "user_id": one.user_id, "signal": one} | fields))


def rows(made: World, name: str) -> list[dict[str, Any]]:
    folder = made.stores.settings.memory / "Signals" / name
    return [json.loads(line) for path in folder.rglob("*.jsonl") for line in path.open()]


@pytest.fixture(autouse=True)
def _fresh_files(request: pytest.FixtureRequest) -> None:
    if "made" in request.fixturenames:
        home: Path = request.getfixturevalue("shared_world").stores.settings.memory / "Signals"
        for path in home.rglob("*.jsonl"):
            path.unlink()


@pytest.mark.asyncio(loop_scope="module")
class TestKeeper:
    async def test_only_what_the_task_used_feels_it_and_only_once(self, made: World) -> None:
        used, other = memory("The port of staging is 8123."), memory("Beans need an hour.")
        theirs = memory("The port of staging is secret.", user_id="bob")
        await made.client.remember(used, other, theirs)
        found = await made.client.search(
            Query(text="port of staging", user_id="ann", limit=1, task_id="r1")
        )
        assert [one.memory.id for one in found.items] == [used.id]
        one = signal()
        for _ in range(3):
            await keeper.take(made.stores, told(one))
        after = {m.id: await made.card(m.id) for m in (used, other, theirs)}
        assert after[used.id]["feedback"] == pytest.approx(0.56)  # type: ignore[index]
        assert after[used.id]["helped"] == 1  # type: ignore[index]
        for still in (other, theirs):
            assert after[still.id]["feedback"] == 0.5  # type: ignore[index]
        assert len(rows(made, "verification")) == 1

    async def test_feedback_stays_within_0_and_1(self, made: World) -> None:
        used = memory("The port of staging is 8123.")
        await made.client.remember(used)
        for far, end in ((0.9, 1.0), (-1.7, 0.0)):
            await cards.judged(made.stores.store, {used.id: far}, made.stores.rules, AT)
            assert (await made.card(used.id))["feedback"] == end  # type: ignore[index]

    async def test_a_signal_is_of_the_user_it_is_told_for(self, made: World) -> None:
        with pytest.raises(InputError):
            await keeper.take(made.stores, told(signal(), user_id="eve"))
        with pytest.raises(InputError):
            await keeper.take(made.stores, Told(verb="signal", user_id="ann"))

    async def test_anothers_signal_moves_nothing_of_mine_or_of_everybody(self, made: World) -> None:
        mine = memory("The port of staging is 8123.")
        shared = memory("The port policy: staging is open.", user_id=SHARED)
        await made.client.remember(mine, shared)
        await made.client.search(Query(text="port staging", user_id="ann", task_id="r1"))
        for whose in ("eve", "ann"):
            await signals.take(
                made.stores, signal(SignalKind.TASK_ABANDON, user_id=whose, root_id="r1")
            )
        cards = {one.id: await made.card(one.id) for one in (mine, shared)}
        assert cards[mine.id]["feedback"] == pytest.approx(0.44)  # type: ignore[index]
        assert cards[shared.id]["feedback"] == 0.5  # type: ignore[index]

    async def test_killed_before_the_commit_it_counts_when_it_comes_again(
        self, made: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        used = memory("The port of staging is 8123.")
        await made.client.remember(used)
        await made.client.search(Query(text="port of staging", user_id="ann", task_id="r1"))
        one = signal(SignalKind.USER_RATING, rating=5)
        judged = signals.cards.judged

        async def dies(*given: Any, **named: Any) -> None:
            await judged(*given, **named)
            raise ConflictError("killed")

        monkeypatch.setattr(signals.cards, "judged", dies)
        with pytest.raises(ConflictError):
            await signals.take(made.stores, one)
        monkeypatch.undo()
        assert (await made.card(used.id))["feedback"] == 0.5  # type: ignore[index]
        real = signals.append
        monkeypatch.setattr(signals, "append", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):  # killed after the commit, before the file
            await signals.take(made.stores, one)
        monkeypatch.setattr(signals, "append", real)
        for _ in range(2):
            await signals.take(made.stores, one)
        assert (await made.card(used.id))["feedback"] == pytest.approx(0.6)  # type: ignore[index]
        (row,) = rows(made, "ratings")
        assert (row["rating"], row["source"], row["ai_infra"]["rating"]) == (10, "explicit", 5)
        assert row["timestamp"] == "2026-11-02T12:00:00+00:00"

    async def test_behaviour_and_measurement_have_files_of_their_own(self, made: World) -> None:
        root = str(uuid.uuid4())
        await made.stores.store.execute(
            "INSERT INTO tasks (id, assigned_agent, type, input, status, output) VALUES"
            " ($1, 'supervisor', 'request', '{}', 'completed', $2)",
            *(root, {"criteria_count": {"passed": 3, "failed": 1, "unmeasured": 0}}),
        )
        for kind in SignalKind:
            rating = 2 if kind is SignalKind.USER_RATING else None
            await signals.take(made.stores, signal(kind, root_id=root, rating=rating))
        measured = {row["kind"]: row["criteria"] for row in rows(made, "verification")}
        count = {"passed": 3, "failed": 1, "unmeasured": 0}
        assert measured == {"task_success": count, "task_failure": count}
        assert {row["kind"] for row in rows(made, "behavioral")} == {
            "user_correction", "user_acceptance", "task_retry", "task_abandon", "response_edit",
            "follow_up", "context_switch",
        }  # fmt: skip
        assert len(rows(made, "ratings")) == 1

    async def test_the_next_message_says_that_the_answer_was_not_enough(self, made: World) -> None:
        roots = [str(uuid.uuid4()) for _ in range(2)]
        for root in roots:
            await made.stores.store.execute(
                "INSERT INTO tasks (id, assigned_agent, type, input, status) VALUES"
                " ($1, 'supervisor', 'request', '{}', 'completed')",
                root,
            )
        await keeper.take(made.stores, said(roots[0], "Why is the build red?", "A test fails.", 0))
        again = said(roots[1], "But why is the build red?", "The parser.", 1)
        for _ in range(2):
            await keeper.take(made.stores, again)
        (row,) = rows(made, "behavioral")
        assert (row["kind"], row["root_id"]) == ("follow_up", roots[0])

    async def test_another_users_or_a_late_message_says_nothing(self, made: World) -> None:
        root = str(uuid.uuid4())
        await made.stores.store.execute(
            "INSERT INTO tasks (id, assigned_agent, type, input, status) VALUES"
            " ($1, 'supervisor', 'request', '{}', 'completed')",
            root,
        )
        await keeper.take(made.stores, said(root, "Why is the build red?", "A test fails.", 0))
        for later in (
            said("x", "Why is the build red?", "So.", 1, user_id="bob"),
            said("y", "Why is the build red?", "So.", 2, later_s=4000),
            said("z", "Why is the build red?", "So.", 3, conversation_id="other"),
        ):
            await keeper.take(made.stores, later)
        assert rows(made, "behavioral") == []

    async def test_how_it_sounds_is_asked_and_kept_once(self, made: World) -> None:
        async def score(wish: dict[str, Any]) -> dict[str, Any]:
            return {"scores": [-0.75 for _ in wish["texts"]], "by": "lexicon"}

        serving = asyncio.create_task(made.bus.serve(streams.SERVICE_SCORE, score))
        while not await made.bus.served(streams.SERVICE_SCORE):
            await asyncio.sleep(0.01)
        one = said(str(uuid.uuid4()), "This is awful.", "I am sorry.", 0)
        for _ in range(2):
            await keeper.take(made.stores, one)
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        (row,) = rows(made, "sentiment")
        assert (row["sentiment"], row["by"], row["user_id"]) == (-0.75, "lexicon", "ann")
        assert rows(made, "ratings") == [], "a mood is no rating"


def said(
    root: str, question: str, answer: str, place: int, *, later_s: float = 60.0, **fields: Any
) -> Told:
    given = {"user_id": "ann", "conversation_id": "c1"} | fields
    at = AT + timedelta(seconds=place * later_s)
    both = [
        memory(
            text, collection="conversations", kind=kind, seq=2 * place + n, task_id=root,
            created_at=at + timedelta(seconds=20 * n),
            id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{root}{n}")), **given,
        )
        for n, (kind, text) in enumerate((("message", question), ("answer", answer)))
    ]  # fmt: skip
    return Told(verb="remember", root_id=root, memories=tuple(both), **given)


# Pure ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "weight"),
    [
        ("user_rating", 1.0), ("user_correction", -0.5), ("user_acceptance", 0.8),
        ("task_success", 0.6), ("task_failure", -0.4), ("task_retry", -0.3),
        ("task_abandon", -0.6), ("response_edit", -0.2), ("follow_up", -0.1),
        ("context_switch", -0.2),
    ],
)  # fmt: skip
def test_the_weights_are_the_plans(kind: str, weight: float) -> None:
    assert signals.WEIGHTS[SignalKind(kind)] == weight


@pytest.mark.parametrize(
    ("rating", "scale", "strength"),
    [(1, 5, -1), (2, 5, -0.5), (3, 5, 0), (4, 5, 0.5), (5, 5, 1),
     (1, 10, -1), (5, 10, -1 / 9), (6, 10, 1 / 9), (10, 10, 1)],
)  # fmt: skip
def test_a_rating_is_how_far_it_is_from_the_middle(
    rating: int, scale: int, strength: float
) -> None:
    given = signal(SignalKind.USER_RATING, rating=rating, scale=scale, weight=0.9)
    assert signals.strength(given) == pytest.approx(strength)


@pytest.mark.parametrize(
    "given",
    [
        signal(SignalKind.USER_RATING),
        signal(SignalKind.TASK_SUCCESS, rating=5),
        signal(SignalKind.USER_RATING, rating=6, scale=5),
    ],
)
def test_a_rating_is_never_inferred(given: Signal) -> None:
    with pytest.raises(InputError):
        signals.strength(given)


@pytest.mark.parametrize(
    ("kind", "weight", "far"),
    [
        ("task_success", 1.0, 0.06), ("task_success", 0.5, 0.03), ("task_abandon", 1.0, -0.06),
        ("task_failure", 1.0, -0.04), ("follow_up", 1.0, -0.01), ("user_correction", -1.0, 0.05),
    ],
)  # fmt: skip
def test_feedback_moves_by_the_seed_plans_weights(kind: str, weight: float, far: float) -> None:
    assert signals.step(signal(SignalKind(kind), weight=weight)) == pytest.approx(far)


@pytest.mark.parametrize(
    ("gap_s", "similarity", "stems", "kind"),
    [
        (60, 0.9, 5, "follow_up"), (599, 0.51, 1, "follow_up"), (601, 0.9, 5, None),
        (-1, 0.9, 5, None), (60, 0.3, 5, None), (20, 0.05, 5, "context_switch"),
        (20, 0.05, 2, None), (31, 0.05, 5, None), (20, 0.2, 5, None),
    ],
)  # fmt: skip
def test_what_the_next_message_means(
    gap_s: float, similarity: float, stems: int, kind: str | None
) -> None:
    assert hearing.kind(gap_s, similarity, stems) == kind


def test_a_row_is_added_once_and_a_torn_one_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "a" / "rows.jsonl"
    assert signals.append(path, {"id": "1", "n": 1})
    assert not signals.append(path, {"id": "1", "n": 1})
    with path.open("ab") as file:
        file.write(b'{"id": "2", "n"')
    assert signals.append(path, {"id": "2", "n": 2})
    assert [json.loads(line)["id"] for line in path.open()] == ["1", "2"]
    quoting = {"id": "3", "comment": 'about "2" and "4"'}
    assert signals.append(path, quoting)
    assert signals.append(path, {"id": "4"})
    assert not signals.append(path, {"id": "3"})
