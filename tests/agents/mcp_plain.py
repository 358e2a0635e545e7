"""An MCP server of the standard library alone, as a sandbox can run it: `python3 mcp_plain.py`.

It speaks the protocol of 2025, in which a server may ask its client.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import urllib.request
from pathlib import Path
from typing import Any

said = {"add": "Adds."}
OBJECT: dict[str, Any] = {"type": "object", "properties": {}}
ASKS = {
    "sample": ("sampling/createMessage", {"messages": [], "maxTokens": 5}),
    "elicit": ("elicitation/create", {"message": "Your password?", "requestedSchema": OBJECT}),
    "roots": ("roots/list", {}),
}


def send(**message: Any) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def tools() -> list[dict[str, Any]]:
    numbers = {"a": {"type": "integer"}, "b": {"type": "integer"}}
    add = {"type": "object", "properties": numbers, "required": ["a", "b"]}
    plain = ["change", "environment", "look", "connect", "fetch", "write", *ASKS]
    return [
        {"name": "add", "description": said["add"], "inputSchema": add},
        *({"name": name, "description": name, "inputSchema": OBJECT} for name in plain),
    ]


def asked(method: str, params: dict[str, Any]) -> str:
    """Ask the client something and tell what it answered."""
    send(id="s1", method=method, params=params)
    while True:
        answer = json.loads(sys.stdin.readline())
        if answer.get("id") == "s1":
            return json.dumps(answer)


def call(name: str, given: dict[str, Any]) -> str:
    match name:
        case "add":
            return str(given["a"] + given["b"])
        case "change":
            said["add"] = given["text"]
            send(method="notifications/tools/list_changed")
            return "changed"
        case "environment":
            return json.dumps({**os.environ, "cwd": os.getcwd(), "uid": os.getuid()})
        case "look":
            return Path(given["path"]).read_text()
        case "write":
            return str(Path(given["path"]).write_text("written"))
        case "connect":
            socket.create_connection((given["host"], given["port"]), 3).close()
            return "connected"
        case "fetch":
            with urllib.request.urlopen(given["url"], timeout=5) as answer:
                return str(answer.read().decode())
    return asked(*ASKS[name])


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        number, method = message.get("id"), message.get("method")
        if method == "initialize":
            info = {"name": "plain", "version": "1"}
            capabilities = {"tools": {"listChanged": True}}
            version = "2025-06-18"
            result = {"protocolVersion": version, "capabilities": capabilities, "serverInfo": info}
            send(id=number, result=result)
        elif method == "tools/list":
            send(id=number, result={"tools": tools()})
        elif method == "tools/call":
            params = message["params"]
            try:
                text, failed = call(params["name"], params.get("arguments") or {}), False
            except Exception as error:
                text, failed = f"{type(error).__name__}: {error}", True
            content = [{"type": "text", "text": text}]
            send(id=number, result={"content": content, "isError": failed})
        elif number is not None:
            send(id=number, error={"code": -32601, "message": "Method not found"})


main()
