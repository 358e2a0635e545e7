"""rate.set: one rate limit of ours."""

from __future__ import annotations

from base.verbs_outside import RateSet
from provision import cloudflare_rules
from provision.verb import Verb

VERB = Verb(
    name="rate.set",
    request=RateSet,
    approval="admin",
    plan=cloudflare_rules.plan,
    run=cloudflare_rules.settle,
)
