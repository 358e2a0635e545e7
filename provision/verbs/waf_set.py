"""waf.set: one firewall rule of ours."""

from __future__ import annotations

from base.verbs_outside import WafSet
from provision import cloudflare_rules
from provision.verb import Verb

VERB = Verb(
    name="waf.set",
    request=WafSet,
    approval="admin",
    plan=cloudflare_rules.plan,
    run=cloudflare_rules.settle,
)
