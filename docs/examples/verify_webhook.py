"""A server that takes a webhook's calls: it checks the signature before it believes a word.

WEBHOOK_SECRET=whsec_... python docs/examples/verify_webhook.py 9000
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

WINDOW_S = 300


def verified(secret: str, signature: str, body: bytes, now_s: float | None = None) -> bool:
    """Whether `body` is what the appliance sent within the last 300 s. `body` is what arrived, to
    the byte: JSON that was parsed and written again has another signature.
    """
    parts = dict(part.split("=", 1) for part in signature.split(",") if "=" in part)
    at = parts.get("t", "")
    if not at.isdecimal() or abs((now_s or time.time()) - int(at)) > WINDOW_S:
        return False
    wanted = hmac.new(secret.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(wanted.encode(), parts.get("v1", "").encode())


class Hook(BaseHTTPRequestHandler):
    """Answers within 10 s; what takes longer is done afterwards."""

    def do_POST(self) -> None:
        """204: taken. Anything but 2xx makes the appliance try again."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        signature = self.headers.get("X-AI-Infra-Signature", "")
        right = verified(os.environ["WEBHOOK_SECRET"], signature, body)
        if right:
            told = json.loads(body)
            # `id` is the same at every attempt: note it, and skip what was taken before.
            print(told["id"], told["type"], told.get("task", {}).get("status"), flush=True)
        self.send_response(204 if right else 401)
        self.end_headers()


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(sys.argv[1])), Hook).serve_forever()
