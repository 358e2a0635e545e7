"""Who decides about a request: the policy, a person, or nobody. Pure.

Whatever the policy's rules say, a person decides about level 3, about a task that has read text
from outside, about more than the task's user could approve, about an address that is not out in
the world, and about a command line that cannot be read plainly.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from base import terminal
from base.approvals import UNBOUND, ApprovalRequest
from base.levels import NAMES, PRIVILEGED
from base.policy import Policy, Rule
from base.verbs import TOOL

Risk = Literal["low", "medium", "high", "critical"]
RISKS: tuple[Risk, ...] = ("low", "medium", "high", "critical")
MINUTE = timedelta(minutes=1)
VALUE_CHARS = 160
LINE_CHARS = 400
#: Variables that change which program runs, or what it loads.
STEERING = ("LD_", "GIT_CONFIG_KEY", "GIT_CONFIG_VALUE")
STEERING_EXACT = re.compile(
    r"BASH_ENV|ENV|IFS|SHELL|EDITOR|VISUAL|(GIT_)?PAGER|GIT_EDITOR|GIT_SSH(_COMMAND)?|GIT_EXEC_PATH"
    r"|GIT_EXTERNAL_DIFF|GIT_PROXY_COMMAND|(GIT|SSH)_ASKPASS|PYTHON(PATH|HOME|STARTUP)"
    r"|NODE_(OPTIONS|PATH)|PERL5(LIB|OPT)|RUBY(LIB|OPT)|JAVA_TOOL_OPTIONS"
)
SYSTEM_PATH = frozenset(
    f"{above}/{name}" for above in ("", "/usr", "/usr/local") for name in ("bin", "sbin")
)
INSIDE_NAMES = (".local", ".internal", ".localhost", ".lan", ".home.arpa", ".localdomain")


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What went before. `open` and `asked` (times): of the same agent; `denials`: of the same
    call in the same task; `user_rank`: the highest rank that the task's user may approve;
    `foreign`: a task that had read text from outside worked in the same workspace.
    """

    user_rank: int
    open: int = 0
    asked: tuple[datetime, ...] = ()
    denials: int = 0
    foreign: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Who decides. `retry_after_s`: refused only for now, being asked too often."""

    word: Literal["auto", "person", "refuse"]
    why: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider:
    """Who answers. `user_id` None: somebody at the machine itself."""

    user_id: str | None
    admin: bool
    rank: int


def decide(request: ApprovalRequest, policy: Policy, history: History, now: datetime) -> Verdict:
    """The verdict about a request that was not made before."""
    if request.level > policy.level_max:
        return _refuse(f"nobody can approve level {request.level} here")
    if request.host is not None and _link_local(request.host):
        return _refuse(f"{request.host} is an address of the machine's own network, never reached")
    if history.denials >= policy.denials_max:
        return _refuse(f"this was denied {history.denials} times already: do not ask again")
    recent = sorted(at for at in history.asked if now - at < MINUTE)
    if len(recent) >= policy.per_minute:
        wait_s = (recent[-policy.per_minute] + MINUTE - now).total_seconds()
        why = f"{request.agent} asked {len(recent)} times within a minute"
        return Verdict(word="refuse", why=why, retry_after_s=max(1.0, wait_s))
    if history.open >= policy.open_max:
        why = f"{request.agent} has {history.open} requests waiting already"
        return Verdict(word="refuse", why=why, retry_after_s=policy.expires_s)
    if (bar := _never_auto(request, history)) is not None:
        return Verdict(word="person", why=bar)
    for name, rule in policy.auto.items():
        if _matches(rule, request):
            return Verdict(word="auto", why=f"rule {name}")
    return Verdict(word="person", why="no rule approves it")


def objection(request: ApprovalRequest, decider: Decider, policy: Policy) -> str | None:
    """Why `decider` may not approve it; None when they may."""
    if request.level > policy.level_max:
        return f"nobody can approve level {request.level} here"
    if request.tool == TOOL and decider.user_id is None:
        return "a verb of the broker is approved in the portal or by `ai-infra approvals`, not here"
    if not decider.admin and decider.user_id != request.user_id:
        return "only an admin, or the one whose task it is, may decide about it"
    if decider.rank < request.level:
        name = NAMES[request.level]
        if decider.admin:
            return f"an admin may approve up to level {decider.rank}; this needs {name}"
        return f"this needs level {name}, which you may not approve: an admin has to"
    return None


def verb(request: ApprovalRequest) -> str | None:
    """What the call does, as a rule's `verbs` name it: the word after the tool's own name.

    None when an option stands there: then no rule that names verbs holds.
    """
    words = request.argv[1:] if request.argv[:1] == (request.tool,) else request.argv
    return None if not words or words[0].startswith("-") else words[0]


def covers(pattern: str, host: str) -> bool:
    """Whether "name:port" or "*.name:port" covers the address `host`, "name:port"."""
    name, port = _split(host)
    wanted, wanted_port = _split(pattern)
    if port != wanted_port:
        return False
    if wanted.startswith("*."):
        return _address(name) is None and name.endswith(wanted[1:]) and len(name) > len(wanted) - 1
    return name == wanted


def sentence(request: ApprovalRequest) -> tuple[Risk, str]:
    """How bad it could be, and one plain line: who wants what, on what, what could go wrong.

    The model's own reason is no part of it: it may be an attacker's.
    """
    parts = [f"{_shown(request.agent)} wants to {_what(request)}{_where(request)}."]
    parts.append(f"If it goes wrong, {_harm(request)}.")
    if request.destructive:
        parts.append("It cannot be undone.")
    if steering := _steering(request):
        parts.append(f"It sets {', '.join(steering)}, which changes what programs do.")
    if request.tainted:
        parts.append("The task has read text from outside, so the wish may be somebody else's.")
    if any(one.sha256 == UNBOUND for one in request.operands):
        parts.append("Its files are too many to be looked at, so they may change until it runs.")
    if hidden := _hidden(request):
        parts.append(f"It holds {hidden} characters that cannot be seen, shown in ⟨⟩ or as signs.")
    return RISKS[_risk(request)], " ".join(parts)


def _refuse(why: str) -> Verdict:
    return Verdict(word="refuse", why=why)


def _never_auto(request: ApprovalRequest, history: History) -> str | None:
    if request.level >= PRIVILEGED:
        return "level 3 is always a person's decision"
    if request.person:
        return "a hook of the owner's wants a person to decide"
    if request.tainted:
        return "the task has read text from outside"
    if history.foreign:
        return "an earlier task in the same workspace has read text from outside"
    if request.level > history.user_rank:
        return f"the task's user may approve up to level {history.user_rank}"
    if request.host is not None and _inside(request.host):
        return f"{_shown(request.host)} is inside this machine or its network"
    if _hidden(request):
        return "it holds characters that cannot be seen"
    if _steering(request):
        return "it changes what programs do by its environment"
    return None


def _matches(rule: Rule, request: ApprovalRequest) -> bool:
    return (
        rule.enabled
        and rule.kind == request.kind
        and request.level <= rule.level_max
        and (rule.destructive or not request.destructive)
        and (rule.agents is None or request.agent in rule.agents)
        and (request.tool != "shell" if rule.tools is None else request.tool in rule.tools)
        and (rule.verbs is None or verb(request) in rule.verbs)
        and (request.host is None or any(covers(one, request.host) for one in rule.hosts))
        and (request.host is not None or not rule.hosts)
    )


def _risk(request: ApprovalRequest) -> int:
    risk = request.level
    if request.kind != "tool":
        risk = max(risk, 1)
    if request.destructive or _hidden(request) or _steering(request):
        risk = max(risk, 2)
    if request.level >= 2 and request.destructive:
        risk = 3
    if request.host is not None and _inside(request.host):
        risk = 3
    return min(risk + request.tainted, 3)


def _what(request: ApprovalRequest) -> str:
    if request.kind == "domain":
        name, port = _split(request.host or "")
        reach = f"reach {_shown(name)} on port {_shown(port)} until the task ends"
        return f"{reach}, by {_shown(request.tool)}"
    words = request.argv or (request.tool,)
    line = _shown(" ".join(words), LINE_CHARS)
    by = "" if words[0] == request.tool else f" by {_shown(request.tool)}"
    to = f", reaching {_shown(request.host)}" if request.host is not None else ""
    if request.kind == "command" and words[0] == "shell" and len(words) > 1:
        return f"run the command `{_shown(' '.join(words[1:]), LINE_CHARS)}`{to}"
    if request.kind == "command":
        return f"have the server do `{line}`{by}{to}"
    return f"run `{line}`{by}{to}"


def _where(request: ApprovalRequest) -> str:
    said = f" in {_shown(request.cwd)}" if request.cwd else ""
    named = [one for one in request.operands if one.path != request.cwd]
    if named:
        names = ", ".join(_shown(one.path) for one in named[:3])
        more = len(named) - 3
        said += f", on {names}" + (f" and {more} more" if more > 0 else "")
    return said + f" (level {request.level}, {NAMES[request.level]})"


def _harm(request: ApprovalRequest) -> str:
    if request.host is not None and _inside(request.host):
        return "services inside this machine or its network are read or changed"
    if request.kind == "domain":
        return "what the task can read is sent there, and what comes back misleads it"
    if request.tool == "git" and verb(request) == "push":
        return "what is in the repository leaves this machine, or replaces what others have"
    if request.destructive:
        return "what it deletes or overwrites is gone"
    if request.level >= PRIVILEGED:
        return "the whole server stops working or is open to others"
    if request.level == 2 or request.kind == "command":
        return "web sites of this server break, or its logs and settings are read"
    return "files in the workspace are changed or lost"


def _steering(request: ApprovalRequest) -> list[str]:
    found = []
    for name, value in request.environment.items():
        plain = name.upper()
        elsewhere = plain == "PATH" and not SYSTEM_PATH.issuperset(value.split(":"))
        if plain.startswith(STEERING) or STEERING_EXACT.fullmatch(plain) or elsewhere:
            found.append(_shown(name))
    return found


def _hidden(request: ApprovalRequest) -> int:
    """How many characters of what is asked for cannot be seen; ordinary newlines and tabs of a
    script are not counted.
    """
    texts = [request.agent, request.tool, request.cwd, *request.argv]
    texts += [one.path for one in request.operands]
    texts += [part for pair in request.environment.items() for part in pair]
    return sum(char not in "\n\t" and terminal.shown(char) != char for char in "".join(texts))


def _shown(text: str, chars: int = VALUE_CHARS) -> str:
    return terminal.clipped(terminal.visible(text), chars)


def _split(host: str) -> tuple[str, str]:
    name, _, port = host.lower().rpartition(":")
    return name.strip("[]").rstrip("."), port


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that `name` spells, in any of the spellings that programs take."""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(name))
    except OSError:
        return None


def _plain(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if isinstance(mapped, ipaddress.IPv4Address) else address


def _link_local(host: str) -> bool:
    address = _address(_split(host)[0])
    return address is not None and _plain(address).is_link_local


def _inside(host: str) -> bool:
    name = _split(host)[0]
    address = _address(name)
    if address is not None:
        return not _plain(address).is_global
    return "." not in name or name.endswith(INSIDE_NAMES)
