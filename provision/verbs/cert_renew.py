"""cert.renew: certificates that are due, each by itself; the timer asks for it every hour."""

from __future__ import annotations

from typing import Any

from base.plural import counted
from base.verbs import By, CertRenew
from provision.box import Box
from provision.certs import Certs
from provision.domains import Domains
from provision.verb import Tell, Verb, named


async def plan(request: CertRenew, box: Box) -> list[str]:
    certs = Certs(box)
    found = certs.list() if request.domain is None else [certs.get(request.domain)]
    due = [
        f"renew {cert.domain} ({counted(round(cert.days_left), 'day')} left)"
        for cert in found
        if cert.due or request.force
    ]
    return [*due, "have nginx read them"] if due else ["nothing is due"]


async def run(request: CertRenew, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    """failed: by domain, why. alarms: domains with less than a quarter of the lifetime left."""
    renewed = await Domains(box, who=named(by)).renew(request.domain, request.force, tell)
    certs = Certs(box)
    alarms = certs.alarms()
    for cert in alarms:
        await tell(f"alarm: {cert.domain}: {cert.problem}")
    return {
        "renewed": [cert.model_dump(mode="json") for cert in renewed],
        "failed": {cert.domain: cert.problem for cert in certs.list() if cert.problem},
        "alarms": [cert.domain for cert in alarms],
    }


VERB = Verb(
    name="cert.renew", request=CertRenew, approval="admin", plan=plan, run=run, deadline_s=3_600.0
)
