"""Cloudflare's side of its API, version 4: zones, records, settings, rules, purge, traffic.

Answers have the shape of the real ones; pages are real pages. A token is let in with the rights
it was given, as scoped tokens are.
"""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

AT = "2026-01-02T03:04:05.000000Z"


class FakeCloudflare:
    """refusals: (status, headers, errors) given before any other answer, in turn; drop: so many
    of the next batches are carried out and their answer is lost.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self.zones: dict[str, dict[str, Any]] = {}
        self.records: dict[str, dict[str, dict[str, Any]]] = {}
        self.rulesets: dict[tuple[str, str], dict[str, Any]] = {}
        self.settings: dict[str, dict[str, str]] = {}
        self.purged: list[Any] = []
        self.refusals: list[tuple[int, dict[str, str], list[dict[str, Any]]]] = []
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.drop = 0
        self._last = 0
        fake = self

        class Answers(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words: object) -> None: ...

            def do_GET(self) -> None:
                fake._answer(self)

            do_POST = do_PATCH = do_PUT = do_DELETE = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server.server_port}/client/v4"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def zone(self, name: str) -> str:
        made = {
            "id": self._id(), "name": name, "status": "active", "paused": False, "type": "full",
            "development_mode": 0, "name_servers": ["ada.ns.example.com", "bob.ns.example.com"],
            "original_name_servers": [], "created_on": AT, "modified_on": AT, "activated_on": AT,
            "account": {"id": self._id(), "name": "Mine"}, "owner": {"id": None, "type": "user"},
            "plan": {"id": self._id(), "name": "Pro Website", "price": 20, "currency": "USD"},
            "meta": {"page_rule_quota": 20}, "permissions": [],
        }  # fmt: skip
        self.zones[made["id"]] = made
        self.records[made["id"]] = {}
        self.settings[made["id"]] = {"ssl": "full", "always_use_https": "off"}
        return str(made["id"])

    def record(self, zone: str, **fields: Any) -> dict[str, Any]:
        made = {
            "id": self._id(), "ttl": 1, "proxied": False, "proxiable": True, "settings": {},
            "meta": {}, "comment": None, "tags": [], "created_on": AT, "modified_on": AT, **fields,
        }  # fmt: skip
        self.records[zone][made["id"]] = made
        return made

    def held(self, zone: str) -> list[str]:
        return sorted(
            f"{one['type']} {one['name']} {one['content']} {one['ttl']} {one['proxied']}"
            for one in self.records[zone].values()
        )

    def _id(self) -> str:
        self._last += 1
        return f"{self._last:032x}"

    def _answer(self, asked: BaseHTTPRequestHandler) -> None:
        size = int(asked.headers.get("Content-Length") or 0)
        data = json.loads(asked.rfile.read(size)) if size else {}
        address = urlsplit(asked.path)
        path = address.path.removeprefix("/client/v4")
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        self.asked.append(f"{asked.command} {path}")
        self.headers.append(dict(asked.headers))
        if self.refusals:
            status, headers, errors = self.refusals.pop(0)
            return _send(asked, status, _told(None, errors), headers)
        if asked.headers.get("Authorization") != f"Bearer {self.token}":
            return _send(
                asked, 403, _told(None, [{"code": 9109, "message": "Invalid access token"}])
            )
        if path == "/graphql":
            return _send(asked, 200, self._traffic(data))
        if path == "/zones" and asked.command == "POST":
            made = self.zones[self.zone(data["name"])]
            made["status"] = "pending"
            return _send(asked, 200, _told(made))
        if path == "/zones":
            found = [one for one in self.zones.values() if query.get("name") in {None, one["name"]}]
            return _send(asked, 200, _page(found, query))
        _, _, zone, *rest = path.split("/")
        if zone not in self.zones:
            return _send(asked, 404, _told(None, [{"code": 7003, "message": "Could not route"}]))
        return self._zone(asked, zone, rest, query, data)

    def _zone(
        self,
        asked: BaseHTTPRequestHandler,
        zone: str,
        rest: list[str],
        query: dict[str, str],
        data: dict[str, Any],
    ) -> None:
        if rest == ["dns_records"]:
            found = [
                one
                for one in self.records[zone].values()
                if query.get("type") in {None, one["type"]}
                and query.get("name.exact") in {None, one["name"]}
            ]
            return _send(asked, 200, _page(found, query))
        if rest == ["dns_records", "batch"]:
            return self._batch(asked, zone, data)
        if rest[0] == "settings":
            if asked.command == "PATCH":
                self.settings[zone][rest[1]] = data["value"]
            value = self.settings[zone][rest[1]]
            return _send(asked, 200, _told({"id": rest[1], "value": value, "editable": True}))
        if rest == ["purge_cache"]:
            self.purged.append(data)
            return _send(asked, 200, _told({"id": zone}))
        if rest == ["load_balancers"]:
            one = {
                "id": self._id(), "name": "www.example.org", "enabled": True, "proxied": True,
                "steering_policy": "geo", "default_pools": ["pool-1", "pool-2"],
                "fallback_pool": "pool-1", "created_on": AT, "modified_on": AT,
            }  # fmt: skip
            return _send(asked, 200, _told([one]))
        if rest[0] == "rulesets":
            return self._rules(asked, zone, rest[1:], data)
        raise AssertionError(rest)

    def _batch(self, asked: BaseHTTPRequestHandler, zone: str, data: dict[str, Any]) -> None:
        """All or nothing: deletes, patches, posts."""
        before = json.loads(json.dumps(self.records[zone]))
        try:
            for one in data.get("deletes", []):
                del self.records[zone][one["id"]]
            for one in data.get("patches", []):
                self.records[zone][one["id"]] |= one
            for one in data.get("posts", []):
                self.record(zone, **one)
            for one in self.records[zone].values():
                kind = {"A": r"[0-9.]+", "AAAA": r"[0-9a-f:]+"}.get(one["type"], ".*")
                if not re.fullmatch(kind, one["content"]) or one["content"] == "203.0.113.99":
                    raise KeyError("content")
        except KeyError:
            self.records[zone] = before
            fault = {"code": 9005, "message": "Content for A record is invalid."}
            return _send(asked, 400, _told(None, [fault]))
        if self.drop:
            self.drop -= 1
            asked.close_connection = True
            return None
        return _send(asked, 200, _told({"deletes": [], "patches": [], "posts": [], "puts": []}))

    def _rules(
        self, asked: BaseHTTPRequestHandler, zone: str, rest: list[str], data: dict[str, Any]
    ) -> None:
        if rest[0] == "phases":
            key = (zone, rest[1])
            if asked.command == "PUT":
                kept = [{"id": self._id(), "version": "1", **one} for one in data["rules"]]
                self.rulesets[key] = {
                    "id": self._id(), "name": "default", "kind": "zone", "phase": rest[1],
                    "version": "1", "last_updated": AT, "rules": kept,
                }  # fmt: skip
            if key not in self.rulesets:
                fault = {"code": 10003, "message": "could not find entrypoint ruleset"}
                return _send(asked, 404, _told(None, [fault]))
            return _send(asked, 200, _told(self.rulesets[key]))
        ruleset = next(one for one in self.rulesets.values() if one["id"] == rest[0])
        kept = ruleset["rules"]
        if data.get("expression", "").count("(") != data.get("expression", "").count(")"):
            fault = {"code": 20127, "message": "Filter parsing error: unbalanced parenthesis"}
            return _send(asked, 400, _told(None, [fault]))
        if asked.command == "POST":
            kept.append({"id": self._id(), "version": "1", "last_updated": AT, **data})
        elif asked.command == "PATCH":
            next(one for one in kept if one["id"] == rest[2]).update(data)
        else:
            kept[:] = [one for one in kept if one["id"] != rest[2]]
        return _send(asked, 200, _told(ruleset))

    def _traffic(self, data: dict[str, Any]) -> dict[str, Any]:
        if data["variables"]["limit"] > 48:
            told = "zone does not have access to data older than 2 days"
            return {"data": None, "errors": [{"message": told, "path": None, "extensions": {}}]}
        hour = {
            "dimensions": {"datetime": "2026-11-28T10:00:00Z"},
            "sum": {
                "requests": 120, "cachedRequests": 100, "bytes": 5_000, "cachedBytes": 4_000,
                "threats": 3, "pageViews": 40,
            },
            "uniq": {"uniques": 7},
        }  # fmt: skip
        return {"data": {"viewer": {"zones": [{"httpRequests1hGroups": [hour]}]}}, "errors": None}


def _told(result: Any, errors: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"success": not errors, "errors": errors or [], "messages": [], "result": result}


def _page(found: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
    size, number = int(query.get("per_page", 20)), int(query.get("page", 1))
    part = found[(number - 1) * size : number * size]
    about = {
        "page": number, "per_page": size, "count": len(part), "total_count": len(found),
        "total_pages": -(-len(found) // size),
    }  # fmt: skip
    return {**_told(part), "result_info": about}


def _send(
    asked: BaseHTTPRequestHandler,
    status: int,
    told: dict[str, Any],
    headers: dict[str, str] | None = None,
) -> None:
    data = json.dumps(told).encode()
    asked.send_response(status)
    for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
        asked.send_header(name, value)
    asked.send_header("Content-Length", str(len(data)))
    asked.end_headers()
    asked.wfile.write(data)
