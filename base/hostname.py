"""Names of hosts: international ones become what DNS knows; what is no public name is refused."""

from __future__ import annotations

import ipaddress
import re

import idna

_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
MAX_CHARS = 253


def hostname(value: str) -> str:
    """`value` in lower case and in the form that DNS knows (A-labels), without a final dot.

    Raises ValueError, in words, for what cannot be the name of a site: an address, a single
    label, a wildcard, a port, a space, a label that is no IDNA 2008 label.
    """
    text = value.strip().removesuffix(".")
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        pass
    else:
        raise ValueError("a domain is a name, not an address")
    try:
        ascii_only = text.isascii()
        name = text.lower() if ascii_only else idna.encode(text, uts46=True).decode("ascii")
        for label in name.split("."):
            if label.startswith("xn--"):
                idna.decode(label)
    except idna.IDNAError as error:
        raise ValueError(f"no domain name: {error}") from error
    labels = name.split(".")
    if len(name) > MAX_CHARS or any(not _LABEL.fullmatch(label) for label in labels):
        raise ValueError("a domain is labels of letters, digits and hyphens, with dots between")
    if len(labels) < 2 or labels[-1].isdigit():
        raise ValueError("a domain has a name and an ending, as in example.org")
    return name
