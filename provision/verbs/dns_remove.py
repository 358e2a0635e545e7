"""dns.remove: records of one name and type are taken away."""

from __future__ import annotations

from base.verbs_outside import DnsRemove
from provision.dns import Dns, changing

VERB = changing("dns.remove", DnsRemove, Dns.removing)
