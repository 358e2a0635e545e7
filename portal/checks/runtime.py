"""The pinned sandbox runtime."""

from __future__ import annotations

import json
import sys

from portal.checks.check import PROGRAM_S, Check, Finding
from portal.checks.sight import ROOT, Sight


async def look(sight: Sight) -> Finding:
    package = ROOT / "agents" / "runtime" / "package.json"
    wanted = json.loads(package.read_text(encoding="utf-8"))["dependencies"]
    version = wanted["@anthropic-ai/sandbox-runtime"]
    code, out, err = await sight.run(sys.executable, "-m", "agents", "--sandbox-runtime", cwd=ROOT)
    last = (out if code == 0 else err).strip().splitlines()[-1:]
    return code == 0, f"{version}, {' '.join(last)}"


CHECK = Check(
    name="sandbox runtime",
    mend="python -m agents --install-sandbox",
    look=look,
    deadline_s=PROGRAM_S,
)
