"""dns.undo: a change of records is taken back."""

from __future__ import annotations

from base.verbs_outside import DnsUndo
from provision.dns import changing

VERB = changing("dns.undo", DnsUndo, lambda dns, asked: dns.undoing(asked.change))
