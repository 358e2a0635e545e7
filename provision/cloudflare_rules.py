"""Rules of ours at Cloudflare: what its firewall does with a request, and how often one may come.

Ours are known by their `ref`; rules that others made in the same phase are listed and left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from base.errors import InputError, NotFoundError
from base.verbs import By
from base.verbs_outside import RateSet, WafSet
from provision.box import Box
from provision.cloudflare import Cloudflare, Zone, opened
from provision.verb import Tell

Kind = Literal["waf", "rate"]
PHASES: dict[Kind, str] = {"waf": "http_request_firewall_custom", "rate": "http_ratelimit"}
MARK = "ai-infra-"
COMPARED = ("action", "expression", "enabled", "description", "ratelimit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """ruleset None: the phase has no rules yet, not even an empty set."""

    ruleset: str | None
    rules: tuple[dict[str, Any], ...]

    def ours(self, name: str) -> dict[str, Any] | None:
        return next((one for one in self.rules if one.get("ref") == MARK + name), None)


async def rules(cloud: Cloudflare, zone: Zone, kind: Kind) -> Rules:
    try:
        found: Any = await cloud.ask(
            lambda: cloud.client.rulesets.phases.get(PHASES[kind], zone_id=zone.id),
            f"{kind} rules of {zone.name}",
        )
    except NotFoundError:
        return Rules(ruleset=None, rules=())
    return _read(found)


def wanted(asked: WafSet | RateSet) -> dict[str, Any]:
    """The rule as Cloudflare takes it."""
    made: dict[str, Any] = {
        "ref": MARK + asked.name,
        "description": asked.name,
        "expression": asked.expression,
        "action": asked.action,
        "enabled": asked.enabled,
    }
    if isinstance(asked, RateSet):
        made["ratelimit"] = {
            "characteristics": ["cf.colo.id", "ip.src"],
            "period": asked.period_s,
            "requests_per_period": asked.requests,
            "mitigation_timeout": asked.block_s,
        }
    return made


def changes(have: Rules, rule: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What of the rule is other than wanted: name → (as it is, as wanted)."""
    old = have.ours(str(rule["description"])) or {}
    return {
        name: (old.get(name), rule[name])
        for name in COMPARED
        if name in rule and not _covers(old.get(name), rule[name])
    }


async def put(cloud: Cloudflare, zone: Zone, kind: Kind, have: Rules, rule: dict[str, Any]) -> str:
    """Make or change the rule; its id. Twice is safe."""
    what = f"{kind} rule {rule['description']} of {zone.name}"
    old = have.ours(rule["description"])
    if have.ruleset is None:
        made: Any = await cloud.ask(
            lambda: cloud.client.rulesets.phases.update(
                PHASES[kind], zone_id=zone.id, rules=[rule]
            ),
            what,
            again=False,
        )
    elif old is None:
        made = await cloud.ask(
            lambda: cloud.client.rulesets.rules.create(have.ruleset, zone_id=zone.id, **rule),
            what,
            again=False,
        )
    else:
        made = await cloud.ask(
            lambda: cloud.client.rulesets.rules.edit(
                old["id"], ruleset_id=have.ruleset, zone_id=zone.id, **rule
            ),
            what,
        )
    found = _read(made).ours(rule["description"])
    if found is None:
        raise InputError(f"Cloudflare did not keep the {what}")
    return str(found["id"])


async def remove(cloud: Cloudflare, zone: Zone, kind: Kind, have: Rules, name: str) -> bool:
    """Whether there was such a rule of ours."""
    old = have.ours(name)
    if old is None:
        return False
    await cloud.ask(
        lambda: cloud.client.rulesets.rules.delete(
            old["id"], ruleset_id=have.ruleset, zone_id=zone.id
        ),
        f"{kind} rule {name} of {zone.name}",
        again=False,
    )
    return True


async def plan(asked: WafSet | RateSet, box: Box) -> list[str]:
    """What `settle` would change."""
    async with opened(box) as cloud:
        zone = await cloud.zone(asked.zone)
        return steps(await rules(cloud, zone, _kind(asked)), wanted(asked))


async def settle(asked: WafSet | RateSet, box: Box, _by: By, tell: Tell) -> dict[str, Any]:
    """The rule as asked, written only where something of it is different."""
    async with opened(box, tell) as cloud:
        zone, kind = await cloud.zone(asked.zone), _kind(asked)
        have, rule = await rules(cloud, zone, kind), wanted(asked)
        for step in steps(have, rule):
            await tell(step)
        changed = bool(changes(have, rule))
        if changed:
            await put(cloud, zone, kind, have, rule)
        return {"zone": zone.name, "name": asked.name, "changed": changed}


def _kind(asked: WafSet | RateSet) -> Kind:
    return "waf" if isinstance(asked, WafSet) else "rate"


def steps(have: Rules, rule: dict[str, Any]) -> list[str]:
    """What `put` would do, in words."""
    name = rule["description"]
    if have.ours(name) is None:
        limit = rule.get("ratelimit")
        above = f" above {limit['requests_per_period']} in {limit['period']} s" if limit else ""
        return [f"add {name}: {rule['action']}{above} when {rule['expression']}"]
    told = [
        f"change {key} of {name}: {old} -> {new}" for key, (old, new) in changes(have, rule).items()
    ]
    return told or [f"nothing: {name} is so already"]


def shown(have: Rules) -> list[dict[str, Any]]:
    return [
        {
            "name": str(one.get("ref", "")).removeprefix(MARK) if _is_ours(one) else None,
            "ours": _is_ours(one),
            "description": one.get("description"),
            "expression": one.get("expression"),
            "action": one.get("action"),
            "enabled": one.get("enabled", True),
            **({"ratelimit": one["ratelimit"]} if one.get("ratelimit") else {}),
        }
        for one in have.rules
    ]


def _read(found: Any) -> Rules:
    """A set of rules as the package gives it: as its own type, or plain when it knows none."""
    plain = found if isinstance(found, dict) else found.to_dict(mode="json")
    return Rules(ruleset=plain["id"], rules=tuple(plain.get("rules") or ()))


def _is_ours(rule: dict[str, Any]) -> bool:
    return str(rule.get("ref", "")).startswith(MARK)


def _covers(have: Any, want: Any) -> bool:
    """Whether what is there says all that is wanted; Cloudflare adds fields of its own."""
    if isinstance(have, dict) and isinstance(want, dict):
        return all(have.get(name) == value for name, value in want.items())
    return bool(have == want)
