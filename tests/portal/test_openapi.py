"""`/openapi.json` says all of every operation, and its examples are true."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from portal.api.examples import ANSWERS, BODIES
from portal.api.openapi import METHODS
from tests.portal.conftest import REPO, Portal

#: The seed plan's specification: what it names has to be there.
PLANNED = {
    "/api/auth/login": "post",
    "/api/conversations": "get post",
    "/api/conversations/{}": "get delete",
    "/api/conversations/{}/messages": "get post",
    "/api/agents": "get",
    "/api/agents/{}": "get",
    "/api/agents/{}/restart": "post",
    "/api/agents/{}/pause": "post",
    "/api/tasks": "get",
    "/api/tasks/{}": "get",
    "/api/domains": "get post",
    "/api/domains/{}": "get delete",
    "/api/domains/{}/deploy": "post",
    "/api/memory/search": "post",
    "/api/memory/learnings": "get",
    "/api/health/live": "get",
    "/api/health/ready": "get",
    "/api/health/agents": "get",
    "/api/usage/daily": "get",
    "/api/usage/budget": "get",
}
PARAMETERS = {
    ("/api/conversations", "get"): {"status", "limit", "cursor", "q"},
    ("/api/conversations/{conversation_id}/messages", "get"): {"limit", "before"},
    ("/api/tasks", "get"): {"status", "agent", "limit", "cursor"},
    ("/api/memory/learnings", "get"): {"phase"},
    ("/api/usage/daily", "get"): {"date", "since", "until", "agent", "model"},
}


@pytest.fixture(scope="module")
def spec(portal: Portal) -> dict[str, Any]:
    with portal.client() as client:
        found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def operations(spec: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in spec["paths"].items():
        for method, operation in item.items():
            if method in METHODS:
                yield path, method, operation


def test_the_plans_paths_are_there(spec: dict[str, Any]) -> None:
    there = {re.sub(r"\{[^}]*\}", "{}", path): item for path, item in spec["paths"].items()}
    for path, methods in PLANNED.items():
        assert set(methods.split()) <= set(there[path]), path
    for (path, method), names in PARAMETERS.items():
        assert names <= {one["name"] for one in spec["paths"][path][method]["parameters"]}, path


def test_every_operation_says_all_of_itself(spec: dict[str, Any]) -> None:
    assert spec["openapi"].startswith("3.1")
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    assert spec["info"]["version"] == project["version"]
    tags = {one["name"] for one in spec["tags"]}
    missing = []
    ids = []
    for path, method, operation in operations(spec):
        where = f"{method.upper()} {path}"
        ids.append(operation["operationId"])
        if not (operation.get("summary") and operation.get("description")):
            missing.append(f"{where}: a summary and a description")
        if not set(operation.get("tags", ())) or set(operation["tags"]) - tags:
            missing.append(f"{where}: a tag that is explained")
        if operation.get("security") is None:
            missing.append(f"{where}: who may call it")
        for content in operation.get("requestBody", {}).get("content", {}).values():
            if "multipart" not in str(operation["requestBody"]) and "example" not in content:
                missing.append(f"{where}: an example of its body")
        for status, answer in operation["responses"].items():
            content = answer.get("content", {})
            if status.startswith("2") and "example" not in content.get(
                "application/json", {"example": None}
            ):
                missing.append(f"{where}: an example of its answer")
            if status.startswith(("4", "5")) and path != "/api/health/ready":
                problem = content["application/problem+json"]
                assert problem["schema"] == {"$ref": "#/components/schemas/Problem"}, where
                assert problem["example"]["status"] == int(status), where
    assert missing == []
    assert len(set(ids)) == len(ids)
    assert {"bearer", "cookie"} <= set(spec["components"]["securitySchemes"])


def test_no_example_is_without_its_operation(spec: dict[str, Any]) -> None:
    ids = {operation["operationId"] for _, _, operation in operations(spec)}
    assert set(BODIES) | set(ANSWERS) <= ids


def test_examples_are_what_the_schemas_say(spec: dict[str, Any]) -> None:
    checked = 0
    for path, method, operation in operations(spec):
        contents = [operation.get("requestBody", {}).get("content", {})]
        contents += [answer.get("content", {}) for answer in operation["responses"].values()]
        for content in contents:
            for kind, told in content.items():
                if "json" in kind and "example" in told:
                    checker = jsonschema.Draft202012Validator(
                        told["schema"] | {"components": spec["components"]},
                        format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
                    )
                    faults = [fault.message for fault in checker.iter_errors(told["example"])]
                    assert faults == [], f"{method.upper()} {path}: {faults}"
                    checked += 1
    assert checked > 100
