"""Which directives a site of ours may have, looked at in what nginx's language makes of the text.

The templates are ours and the values are typed; this is the second lock on the same door.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import crossplane

from base.errors import ConflictError
from base.verbs import UPSTREAM
from provision.box import Box
from provision.spec import ANY, PLAIN, Spec

Check = Callable[[list[str]], bool]
_URL = re.compile(r"https://(\$host(:\d{2,5})?|[a-z0-9.-]+)\$request_uri")
#: Whatever nginx takes for these does no harm beyond the site.
FREE = frozenset(
    {
        "gzip",
        "gzip_vary",
        "gzip_proxied",
        "gzip_comp_level",
        "gzip_min_length",
        "gzip_types",
        "index",
        "try_files",
        "default_type",
        "client_max_body_size",
        "limit_req",
        "limit_req_status",
        "limit_conn",
        "limit_conn_status",
        "proxy_http_version",
        "proxy_set_header",
        "proxy_connect_timeout",
        "proxy_read_timeout",
        "proxy_send_timeout",
        "proxy_buffering",
        "proxy_request_buffering",
        "ssl_protocols",
        "ssl_ciphers",
        "ssl_ecdh_curve",
        "ssl_prefer_server_ciphers",
        "ssl_session_timeout",
        "ssl_session_cache",
        "ssl_session_tickets",
        "add_header",
        "http2",
        "error_page",
        "disable_symlinks",
        "server",
        "location",
    }
)


def check(file: Path, spec: Spec, box: Box, root: Path) -> None:
    """Raises ConflictError, naming directive and line, for what a site may not have.

    file: as it lies in a generation. root: the folder of generations.
    """
    payload = crossplane.parse(str(file), single=True, check_ctx=False)
    for error in payload["errors"]:
        raise ConflictError(f"{spec.domain}: {error['error']}")
    rules = _rules(spec, box, root)
    for directive in _walk(payload["config"][0]["parsed"]):
        name, args = directive["directive"], directive["args"]
        if name in FREE:
            continue
        rule = rules.get(name)
        if rule is None or not rule(args):
            said = " ".join([name, *args])
            raise ConflictError(
                f"{spec.domain}: line {directive['line']} may not stand in a site: {said}"
            )


def _rules(spec: Spec, box: Box, root: Path) -> dict[str, Check]:
    ports = {str(box.http_port), str(box.https_port)}
    shared = (root / "current" / "snippets", root / "current" / "conf.d")
    hosts = set(spec.hosts)
    flags = {"ssl", "http2"} | ({"default_server"} if spec.domain == ANY else set())
    return {
        "listen": lambda args: args[0].rpartition(":")[2] in ports and set(args[1:]) <= flags,
        "server_name": lambda args: set(args) == hosts,
        "access_log": lambda args: _within(args[0], box.nginx_logs) and len(args) == 1,
        "root": lambda args: args[0] == str(spec.challenge_root) or _within(args[0], box.www),
        "include": lambda args: any(_within(args[0], folder) for folder in shared),
        "ssl_certificate": lambda args: args == [str(spec.certificate)],
        "ssl_certificate_key": lambda args: args == [str(spec.key)],
        "proxy_pass": lambda args: UPSTREAM.fullmatch(args[0]) is not None,
        "return": lambda args: (
            args == ["404"] or (args[0] == "301" and _URL.fullmatch(args[1]) is not None)
        ),
    }


def _within(path: str, folder: Path) -> bool:
    return (
        PLAIN.fullmatch(path) is not None
        and ".." not in Path(path).parts
        and Path(path).is_relative_to(folder)
    )


def _walk(block: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for directive in block:
        yield directive
        yield from _walk(directive.get("block", []))
