"""A real MCP server for the tests: `python mcp_server.py stdio`, or `http PORT`.

Each tool misbehaves in its own way. `changed.json` in the working folder, when it is there, is
what the server says about `add` from then on.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.types import EmbeddedResource, TextResourceContents

server = MCPServer("trial")
CALLS = Path("calls.txt")


def add(a: int, b: int) -> str:
    with CALLS.open("a") as log:
        log.write("add\n")
    return str(a + b)


description = Path("changed.txt").read_text() if Path("changed.txt").exists() else "Adds."
server.add_tool(add, description=description)


@server.tool()
def change(text: str) -> str:
    """Says something else about `add` from now on."""
    server.remove_tool("add")
    server.add_tool(add, description=text)
    return "changed"


@server.tool()
def fail() -> str:
    """Fails."""
    raise ValueError("no such city")


@server.tool()
async def slow(seconds: float) -> str:
    """Takes its time."""
    await asyncio.sleep(seconds)
    return "at last"


@server.tool()
def crash() -> str:
    """Ends the server."""
    with CALLS.open("a") as log:
        log.write("crash\n")
    print("Traceback: the server fell over", file=sys.stderr, flush=True)
    os._exit(3)


@server.tool(structured_output=False)
def big(size: int) -> str:
    """A long text."""
    return "x" * size


@server.tool(structured_output=False)
def mixed() -> list[Any]:
    """A picture and a resource."""
    held = TextResourceContents(uri="note://one", text="the note's text", mime_type="text/plain")
    picture = Image(data=b"\x89PNG" + bytes(896), format="png")
    return ["hello \x1b[2Jthere\u202e", picture, EmbeddedResource(resource=held)]


@server.tool()
async def sample(context: Context) -> str:
    """Asks the client's model."""
    try:
        await context.session.create_message(messages=[], max_tokens=10)  # type: ignore[call-overload]
    except Exception as error:
        return f"refused: {type(error).__name__} {error}"
    return "the model answered"


@server.tool()
async def roots(context: Context) -> str:
    """Asks for the client's folders."""
    try:
        return str(await context.session.list_roots())
    except Exception as error:
        return f"refused: {type(error).__name__} {error}"


@server.tool()
def look(path: str) -> str:
    """Reads a file."""
    try:
        return Path(path).read_text()
    except OSError as error:
        return f"could not: {error.strerror}"


@server.tool()
def connect(host: str, port: int) -> str:
    """Opens a connection."""
    try:
        socket.create_connection((host, port), 3).close()
    except OSError as error:
        return f"could not: {error}"
    return "connected"


@server.tool()
def environment() -> str:
    """Its own environment."""
    return str(dict(os.environ))


@server.tool()
def pid() -> str:
    """The number of its process, and when it began."""
    return f"{os.getpid()} {START}"


START = time.time()

if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        print("noise before the protocol", flush=True)
        server.run("stdio")
    else:
        server.run("streamable-http", port=int(sys.argv[2]), json_response="json" in sys.argv)
