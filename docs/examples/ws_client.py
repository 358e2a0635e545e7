"""Ask over `/ws` and print the answer as it streams, through dropped connections.

    AI_INFRA_TOKEN=... python docs/examples/ws_client.py "What is in the workspace?"

Needs `pip install httpx websockets`. The protocol: docs/websocket.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

ENDED = 4401
WAIT_FIRST_S, WAIT_MAX_S = 0.2, 10.0


class Conversation:
    """One conversation, followed for as long as it takes."""

    def __init__(self, url: str, token: str, conversation_id: str) -> None:
        self._url = "ws" + url.removeprefix("http").rstrip("/") + "/ws"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._id = conversation_id
        self._cursor: str | None = None
        self._unsent: dict[str, Any] | None = None

    async def ask(self, content: str) -> AsyncIterator[dict[str, Any]]:
        """Send a message; every frame from then on, in order, none lost and none twice.

        The key makes sending again safe: nobody knows whether a dropped connection took it along.
        """
        self._unsent = {
            "conversation_id": self._id,
            "content": content,
            "idempotency_key": str(uuid.uuid4()),
        }
        wait_s = WAIT_FIRST_S
        while True:
            try:
                async with connect(
                    self._url, additional_headers=self._headers, max_size=None, proxy=None
                ) as socket:
                    async for frame in self._frames(socket):
                        wait_s = WAIT_FIRST_S
                        yield frame
            except ConnectionClosed as closed:
                if closed.rcvd is not None and closed.rcvd.code == ENDED:
                    raise
            except (OSError, InvalidHandshake, TimeoutError):
                pass  # it is restarting, or the network is away
            await asyncio.sleep(wait_s * random.uniform(0.5, 1))
            wait_s = min(WAIT_MAX_S, wait_s * 2)

    async def _frames(self, socket: ClientConnection) -> AsyncIterator[dict[str, Any]]:
        wanted = {"channel": "conversation", "conversation_id": self._id}
        if self._cursor is not None:
            wanted["last_event_id"] = self._cursor
        await _send(socket, "subscribe", wanted)
        async for raw in socket:
            frame: dict[str, Any] = json.loads(raw)
            kind, payload = frame["type"], frame["payload"]
            if kind == "subscribed":
                # From here on, unless something was missed: that comes next, with its own ids.
                self._cursor = self._cursor or payload["event_id"]
                if self._unsent is not None:
                    await _send(socket, "send_message", self._unsent)
            elif kind == "accepted":
                self._unsent = None
            elif kind == "error" and payload["code"] == "resync":
                self._cursor = payload["details"]["event_id"]
            yield frame
            self._cursor = frame.get("event_id", self._cursor)


class Answer:
    """What was said so far of one message; a higher attempt starts it anew."""

    def __init__(self) -> None:
        self.attempt = 0
        self.text = ""
        self.whole = False

    def take(self, payload: dict[str, Any]) -> str:
        """What a chunk adds, to be printed."""
        if payload["attempt"] < self.attempt:
            return ""
        anew = payload["attempt"] > self.attempt and self.text
        if payload["attempt"] > self.attempt:
            self.attempt, self.text = payload["attempt"], ""
        self.text += payload["content"]
        return ("\n[starts anew]\n" if anew else "") + str(payload["content"])

    def end(self, payload: dict[str, Any]) -> str:
        """What of the whole answer was not printed yet: all of it, after a resync."""
        whole: str = payload["content"]
        rest = whole[len(self.text) :] if whole.startswith(self.text) else "\n" + whole
        self.text, self.whole = whole, True
        return rest


async def main(url: str, token: str, content: str) -> int:
    """Print the answer; 0 when there is one."""
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
        made = await client.post("/api/conversations", json={})
        made.raise_for_status()
    answers: dict[str, Answer] = {}
    ours = ""
    async for frame in Conversation(url, token, made.json()["id"]).ask(content):
        kind, payload = frame["type"], frame["payload"]
        if kind == "accepted" and not ours:
            ours = payload["answer_message_id"]  # its first pieces may have come before this
            print(answers.setdefault(ours, Answer()).text, end="", flush=True)
        elif kind in {"message_chunk", "message_complete"}:
            answer = answers.setdefault(payload["message_id"], Answer())
            more = answer.take(payload) if kind == "message_chunk" else answer.end(payload)
            print(more if payload["message_id"] == ours else "", end="", flush=True)
        elif kind == "error" and payload["code"] != "resync":
            print(payload["message"], file=sys.stderr)
            return 1
        if ours and answers[ours].whole:
            print()
            return 0
    return 1


async def _send(socket: ClientConnection, kind: str, payload: dict[str, Any]) -> None:
    await socket.send(json.dumps({"type": kind, "payload": payload, "id": kind}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("content")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.url, os.environ["AI_INFRA_TOKEN"], given.content)))
