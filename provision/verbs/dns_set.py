"""dns.set: the records of one name and type."""

from __future__ import annotations

from base.verbs_outside import DnsSet
from provision.dns import Dns, changing

VERB = changing("dns.set", DnsSet, Dns.setting)
