"""Who decides: tables of requests, histories and policies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from base import policy, terminal
from base.approvals import UNBOUND, ApprovalRequest, Operand, binding
from base.errors import SettingsError
from base.policy import Policy, Rule
from base.settings import Settings
from supervisor import gate
from supervisor.gate import Decider, History, decide, objection, sentence

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def asks(**fields: Any) -> ApprovalRequest:
    given: dict[str, Any] = {
        "task_id": "t",
        "root_id": "r",
        "epoch": 1,
        "agent": "code",
        "user_id": "u",
        "call_id": "c",
        "kind": "tool",
        "tool": "git",
        "argv": ("git", "push", "origin"),
        "cwd": "/ws",
        "level": 1,
        **fields,
    }
    if given["kind"] == "domain":
        given = {"tool": "web_fetch", "host": "docs.example.org:443", **given, "argv": ()}
    return ApprovalRequest(**given)


PUSH = Rule(kind="tool", tools=("git",), verbs=("push",), level_max=2)
DOCS = Rule(kind="domain", hosts=("*.example.org:443",), level_max=1)
RULES = Policy(auto={"push": PUSH, "docs": DOCS})


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (asks(), "auto"),
        (asks(level=2), "auto"),
        (asks(argv=("git", "fetch")), "person"),
        (asks(argv=("git", "-c", "x=y", "push")), "person"),
        (asks(tool="shell", argv=("git push",)), "person"),
        (asks(tool="shell", argv=("git", "push")), "person"),
        (asks(tainted=True), "person"),
        (asks(destructive=True), "person"),
        (asks(level=3), "person"),
        (asks(argv=("git", "push", "\u202eorigin")), "person"),
        (asks(argv=("git", "push", "\x1b[2J")), "person"),
        (asks(environment={"LD_PRELOAD": "/tmp/x.so"}), "person"),
        (asks(environment={"PATH": "/ws/bin:/usr/bin"}), "person"),
        (asks(environment={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C"}), "auto"),
        (asks(host="example.com:443"), "person"),
        (asks(kind="domain"), "auto"),
        (asks(kind="domain", host="DOCS.Example.org.:443"), "auto"),
        (asks(kind="domain", host="example.org:443"), "person"),
        (asks(kind="domain", host="evilexample.org:443"), "person"),
        (asks(kind="domain", host="docs.example.org:80"), "person"),
        (asks(kind="domain", host="docs.example.org.evil.net:443"), "person"),
        (asks(kind="domain", level=2), "person"),
        (asks(kind="domain", tainted=True), "person"),
        (asks(kind="command", tool="broker", argv=("unit.restart", "nginx")), "person"),
        (asks(kind="domain", host="169.254.169.254:80"), "refuse"),
        (asks(kind="domain", host="2852039166:80"), "refuse"),
        (asks(kind="domain", host="0xa9.0xfe.0xa9.0xfe:80"), "refuse"),
        (asks(kind="domain", host="[::ffff:169.254.169.254]:80"), "refuse"),
        (asks(kind="domain", host="[fe80::1]:443"), "refuse"),
    ],
)
def test_who_decides(request_: ApprovalRequest, word: str) -> None:
    verdict = decide(request_, RULES, History(user_rank=2), NOW)
    assert verdict.word == word, verdict


@pytest.mark.parametrize(
    ("rule", "request_"),
    [
        ({"agents": ("data",)}, asks()),
        ({"enabled": False}, asks()),
        ({"level_max": 0}, asks()),
        ({"hosts": ("a.example.org:443",)}, asks()),
    ],
)
def test_each_word_of_a_rule_narrows_it(rule: dict[str, Any], request_: ApprovalRequest) -> None:
    rules = Policy(auto={"push": PUSH})
    assert decide(request_, rules, History(user_rank=2), NOW).word == "auto"
    narrow = Policy(auto={"push": PUSH.model_copy(update=rule)})
    assert decide(request_, narrow, History(user_rank=2), NOW).word == "person"


def test_what_cannot_be_undone_needs_a_rule_that_says_so() -> None:
    rules = Policy(auto={"push": PUSH.model_copy(update={"destructive": True})})
    assert decide(asks(destructive=True), rules, History(user_rank=2), NOW).word == "auto"
    hooked = decide(asks(destructive=True, person=True), rules, History(user_rank=2), NOW)
    assert (hooked.word, hooked.why) == ("person", "a hook of the owner's wants a person to decide")
    tainted = asks(destructive=True, tainted=True)
    assert decide(tainted, rules, History(user_rank=2), NOW).word == "person"


def test_a_rule_for_the_broker_approves_no_program_of_that_name() -> None:
    policy = Policy(auto={"r": Rule(kind="command", verbs=("unit.restart",), level_max=2)})
    broker = asks(kind="command", tool="broker", argv=("broker", "unit.restart"), host=None)
    shell = asks(kind="command", tool="shell", argv=("shell", "unit.restart"), host=None)
    assert decide(broker, policy, History(user_rank=3), NOW).word == "auto"
    assert decide(shell, policy, History(user_rank=3), NOW).word == "person"
    named = Policy(auto={"r": policy.auto["r"].model_copy(update={"tools": ("shell",)})})
    assert decide(shell, named, History(user_rank=3), NOW).word == "auto"


def test_nothing_is_approved_by_itself_beyond_what_the_user_could_approve() -> None:
    assert decide(asks(level=2), RULES, History(user_rank=1), NOW).word == "person"
    assert decide(asks(level=1), RULES, History(user_rank=1), NOW).word == "auto"


def test_the_cap_is_a_refusal() -> None:
    capped = RULES.model_copy(update={"level_max": 1})
    assert decide(asks(level=2), capped, History(user_rank=3), NOW).word == "refuse"


def test_a_flood_is_refused_for_a_while() -> None:
    asked = tuple(NOW - timedelta(seconds=at) for at in (50, 40, 30, 20, 10))
    verdict = decide(asks(), RULES, History(user_rank=2, asked=asked), NOW)
    assert (verdict.word, verdict.retry_after_s) == ("refuse", 10.0)
    fewer = History(user_rank=2, asked=asked[1:])
    assert decide(asks(), RULES, fewer, NOW).word == "auto"
    old = History(user_rank=2, asked=tuple(NOW - timedelta(seconds=61) for _ in range(9)))
    assert decide(asks(), RULES, old, NOW).word == "auto"
    full = decide(asks(), RULES, History(user_rank=2, open=5), NOW)
    assert full.word == "refuse"
    assert full.retry_after_s is not None
    assert decide(asks(), RULES, History(user_rank=2, open=4), NOW).word == "auto"


def test_nagging_is_refused_for_good() -> None:
    verdict = decide(asks(), RULES, History(user_rank=2, denials=2), NOW)
    assert (verdict.word, verdict.retry_after_s) == ("refuse", None)


USER = Decider(user_id="u", admin=False, rank=1)
ADMIN = Decider(user_id="a", admin=True, rank=3)


@pytest.mark.parametrize(
    ("decider", "level", "allowed"),
    [
        (USER, 1, True),
        (USER, 2, False),
        (Decider(user_id="other", admin=False, rank=3), 1, False),
        (Decider(user_id=None, admin=False, rank=0), 0, False),
        (ADMIN, 3, True),
        (Decider(user_id="a", admin=True, rank=2), 3, False),
        (Decider(user_id=None, admin=True, rank=3), 3, True),
    ],
)
def test_who_may_approve(decider: Decider, level: int, allowed: bool) -> None:
    assert (objection(asks(level=level), decider, Policy()) is None) is allowed


def test_nobody_approves_above_the_cap() -> None:
    assert objection(asks(level=3), ADMIN, Policy(level_max=2)) is not None


@pytest.mark.parametrize(
    ("request_", "risk", "words"),
    [
        (asks(level=0), "low", ["code wants to run `git push origin` in /ws (level 0"]),
        (asks(), "medium", ["leaves this machine"]),
        (asks(kind="domain"), "medium", ["reach docs.example.org on port 443", "is sent there"]),
        (asks(tool="shell", argv=("rm -rf x",), destructive=True), "high", ["cannot be undone"]),
        (asks(level=2), "high", ["level 2, elevated"]),
        (asks(level=3, kind="command", tool="broker", argv=("unit.restart",)), "critical", []),
        (asks(level=2, destructive=True), "critical", []),
        (asks(tainted=True), "high", ["read text from outside"]),
        (asks(kind="domain", host="127.0.0.1:6379"), "critical", ["inside this machine"]),
        (asks(kind="domain", host="localhost:80"), "critical", ["inside this machine"]),
        (asks(environment={"GIT_SSH_COMMAND": "sh"}), "high", ["sets GIT_SSH_COMMAND"]),
        (asks(operands=(Operand(path="/ws", sha256=UNBOUND),)), "medium", ["too many to be"]),
        (
            asks(operands=tuple(Operand(path=f"/ws/{n}") for n in range(5))),
            "medium",
            ["on /ws/0, /ws/1, /ws/2 and 2 more"],
        ),
    ],
)
def test_the_sentence_says_who_what_where_and_what_then(
    request_: ApprovalRequest, risk: str, words: list[str]
) -> None:
    found, text = sentence(request_)
    assert found == risk, text
    for word in words:
        assert word in text, text


HIDDEN = [
    ("\x1b", "␛"),
    ("\r", "␍"),
    ("\x00", "␀"),
    ("\x7f", "␡"),
    ("\x9b", "⟨U+009B⟩"),
    ("\u202e", "⟨U+202E⟩"),
    ("\u2066", "⟨U+2066⟩"),
    ("\u200b", "⟨U+200B⟩"),
    ("\ufeff", "⟨U+FEFF⟩"),
    ("\u00ad", "⟨U+00AD⟩"),
    ("\u2028", "⟨U+2028⟩"),
    ("\u00a0", "⟨U+00A0⟩"),
    ("\u3164", "⟨U+3164⟩"),
    ("\U000e0041", "⟨U+E0041⟩"),
    ("\ufe0f", "⟨U+FE0F⟩"),
    ("\ue000", "⟨U+E000⟩"),
]


@pytest.mark.parametrize(("mark", "shown"), HIDDEN)
def test_nothing_hides_in_a_sentence(mark: str, shown: str) -> None:
    if mark != "\x00":
        risk, text = sentence(asks(argv=("git", "push", f"a{mark}b")))
        assert f"a{shown}b" in text
        assert mark not in text
        assert risk in {"high", "critical"}
        assert "cannot be seen" in text
    assert terminal.visible(f"a{mark}b") == f"a{shown}b"
    assert mark not in terminal.exact([f"a{mark}b"])


def test_every_field_that_is_shown_is_made_visible() -> None:
    evil = "x\x1b]0;\u202ey"
    request = asks(
        agent=evil,
        tool=evil,
        argv=(evil,),
        cwd=evil,
        operands=(Operand(path=evil),),
        environment={f"LD_{evil}": evil},
    )
    text = sentence(request)[1]
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\n" not in text


def test_plain_words_of_any_language_stay() -> None:
    assert terminal.visible("grün 漢字 🙂 e\u0301") == "grün 漢字 🙂 e\u0301"


def test_a_long_value_is_clipped_in_the_middle_and_counted() -> None:
    text = sentence(asks(argv=("git", "push", "a" * 5_000 + "EVIL")))[1]
    assert len(text) < 1_200
    assert "EVIL" in text
    assert "characters left out" in text
    assert terminal.clipped("a" * 10, 10) == "a" * 10


def test_the_exact_command_line_is_without_doubt() -> None:
    assert terminal.exact(["a b", 'c"d', "é", "\n"]) == '"a b" "c\\"d" "\\u00e9" "\\n"'
    assert terminal.exact(["a", "b"]) != terminal.exact(["a b"])


def test_the_models_own_reason_is_no_part_of_the_sentence() -> None:
    assert "harmless" not in sentence(asks(reason="it is harmless, approve it"))[1]


CHANGES: list[dict[str, Any]] = [
    {"task_id": "t2"},
    {"root_id": "r2"},
    {"agent": "data"},
    {"user_id": "u2"},
    {"call_id": "c2"},
    {"kind": "command"},
    {"tool": "hg"},
    {"argv": ("git", "push", "origin", "-f")},
    {"argv": ("git", "push origin")},
    {"cwd": "/ws2"},
    {"environment": {"A": "1"}},
    {"operands": (Operand(path="/ws/a", sha256="00"),)},
    {"level": 2},
    {"host": "example.org:443"},
    {"tainted": True},
    {"destructive": True},
    {"person": True},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_a_decision_is_bound_to_everything_but_words_and_epoch(change: dict[str, Any]) -> None:
    assert binding(asks(**change)) != binding(asks())


def test_words_and_epoch_are_bound_to_nothing() -> None:
    assert binding(asks(reason="please", epoch=7)) == binding(asks())
    again = ApprovalRequest.model_validate_json(asks().model_dump_json())
    assert binding(again) == binding(asks())


def test_the_list_of_changes_names_every_field() -> None:
    named = {key for change in CHANGES for key in change}
    assert named | {"reason", "epoch"} == set(ApprovalRequest.model_fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"argv": ("a\0b",)},
        {"argv": ("x" * 300_000,)},
        {"kind": "domain", "host": None},
        {"kind": "domain", "host": "ex\u0430mple.org:443"},
        {"kind": "domain", "host": "example.org"},
        {"level": 4},
        {"task_id": ""},
    ],
)
def test_a_request_that_cannot_be_meant_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        asks(**fields)


def load(tmp_path: Path, text: str) -> Policy:
    settings = Settings(home=tmp_path)
    settings.config.mkdir(parents=True, exist_ok=True)
    (settings.config / "approvals.toml").write_text(text)
    return policy.load(settings)


def test_the_shipped_policy_and_the_owners_over_it(tmp_path: Path) -> None:
    shipped = policy.load()
    assert (shipped.expires_s, shipped.open_max, shipped.per_minute) == (600, 5, 5)
    assert all(not rule.destructive for rule in shipped.auto.values())
    own = load(tmp_path, "expires_s = 60\n[auto.reference]\nenabled = false\n")
    assert own.expires_s == 60
    assert own.open_max == 5
    assert not own.auto["reference"].enabled
    assert own.auto["reference"].hosts == shipped.auto["reference"].hosts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("expires_s = 0", "expires_s: "),
        ("open = 3", "open: "),
        ("[auto.a]\nkind='domain'", "names its hosts"),
        ("[auto.a]\nkind='tool'", "names them"),
        ("[auto.a]\nkind='command'", "names their verbs"),
        ("[auto.a]\nkind='domain'\nhosts=['*:443']", "auto.a.hosts"),
        ("[auto.a]\nkind='domain'\nhosts=['*.org:443']", "auto.a.hosts"),
        ("[auto.a]\nkind='tool'\ntools=['git']\nlevel_max=3", "auto.a.level_max"),
        ("[auto]\na=1", "auto.a: "),
        ("auto=1", "auto: "),
        ("auto=[", "approvals.toml"),
    ],
)
def test_a_fault_of_the_policy_names_file_and_field(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=r"approvals\.toml") as caught:
        load(tmp_path, text)
    assert any(said in fault for fault in caught.value.faults), caught.value.faults


def test_a_pattern_covers_names_below_it_and_nothing_else() -> None:
    assert gate.covers("*.a.b:443", "x.y.a.b:443")
    assert not gate.covers("*.a.b:443", "a.b:443")
    assert not gate.covers("*.a.b:443", "xa.b:443")
    assert gate.covers("a.b:443", "A.B:443")


def test_a_verb_of_the_broker_is_not_approved_in_the_agents_own_window() -> None:
    owner = Decider(user_id=None, admin=True, rank=3)
    asked = asks(kind="command", tool="broker", argv=("unit.restart", 'unit="a.service"'), level=2)
    assert "in the portal" in (objection(asked, owner, Policy()) or "")
    assert objection(asked, ADMIN, Policy()) is None
    assert objection(asks(level=2), owner, Policy()) is None
