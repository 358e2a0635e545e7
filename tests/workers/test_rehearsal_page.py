"""Every example of docs/rehearsal.md is run as it stands there."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any

import anthropic
import pytest

from workers.rehearsal_script import CALLERS, LANES, STATUS, STREAM_FAULTS, Line

PAGE = (Path(__file__).parents[2] / "docs" / "rehearsal.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```rehearsal\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
WRONG = re.findall(r"^```rehearsal-wrong\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
PURPOSES = {key: purpose for purpose, key in LANES.items()}
TOOL = {"name": "any", "input_schema": {"type": "object", "properties": {}}}


class Task:
    """Plays the system: asks for each line of a block as its caller would."""

    def __init__(self, url: str, block: str) -> None:
        self.sdk = anthropic.AsyncAnthropic(api_key="none", base_url=url, max_retries=0)
        self.id = str(uuid.uuid4())
        self.block = block
        self.turns: dict[str, list[dict[str, Any]]] = {}

    async def ask(self, caller: str, key: str, match: str) -> Any:
        """The next reply to `caller`; a fault raises as the SDK has it."""
        purpose = PURPOSES.get(key, "join" if caller == "join" else "execute")
        opening = f"{match}\n```rehearsal\n{self.block}```"
        turns = self.turns.setdefault(f"{caller} {match}", [{"role": "user", "content": opening}])
        forced = key in PURPOSES and key != "peer"
        reply = await self.sdk.messages.create(
            model="m",
            max_tokens=100,
            messages=turns if key not in PURPOSES else turns[:1],  # type: ignore[arg-type]
            metadata={"user_id": f"{self.id}/{caller}/{purpose}"},
            **({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "any"}} if forced else {}),
        )
        if key not in PURPOSES:
            content = [block.to_dict() for block in reply.content]
            results = [
                {"type": "tool_result", "tool_use_id": block["id"], "content": "ok"}
                for block in content
                if block["type"] == "tool_use"
            ]
            turns += [
                {"role": "assistant", "content": content},
                {"role": "user", "content": results or "Go on."},
            ]
        return reply


def check(line: dict[str, Any], key: str, reply: Any) -> None:
    said = "".join(block.text for block in reply.content if block.type == "text")
    used = [block for block in reply.content if block.type == "tool_use"]
    if key in PURPOSES:
        given = line[key]
        assert said == given if isinstance(given, str) else used[0].input == given
    else:
        wanted = line.get("tools") or [line] if "tool" in line or "tools" in line else []
        assert [(one.name, one.input) for one in used] == [(o["tool"], o["input"]) for o in wanted]
        assert said == line.get("say", "")
    if "stop_reason" in line:
        assert reply.stop_reason == line["stop_reason"]
    if isinstance(line.get("usage"), dict):
        assert reply.usage.input_tokens == line["usage"]["input_tokens"]


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
async def test_example(rehearsal_url: str, block: str) -> None:
    task = Task(rehearsal_url, block)
    lines = [json.loads(text) for text in block.splitlines()]
    faults = 0
    for line in lines:
        if "fault" in line:
            faults += line.get("times", 1)
            continue
        key = next((word for word in PURPOSES if word in line), "say")
        if key == "say" and not {"say", "tool", "tools"} & line.keys():
            continue
        asked = (line.get("for", "code"), key, line.get("match", ""))
        for _ in range(faults):
            if "silence" not in block:
                with pytest.raises(anthropic.APIError):
                    await task.ask(*asked)
        if "silence" in block:
            await _breaks(task, asked, faults)
        check(line, key, await task.ask(*asked))
        faults = 0
    assert faults == 0, "the example ends with a fault that nothing follows"
    await task.sdk.close()


async def _breaks(task: Task, asked: tuple[str, str, str], faults: int) -> None:
    """A silent reply comes whole in the end; a cut one breaks on the way."""
    broken = 0
    for _ in range(faults):
        try:
            await task.sdk.messages.create(
                model="m",
                max_tokens=100,
                messages=[{"role": "user", "content": f"```rehearsal\n{task.block}```"}],
                metadata={"user_id": f"{task.id}/{asked[0]}/execute"},
            )
        except Exception:
            broken += 1
    assert broken > 0


@pytest.mark.parametrize("block", WRONG)
async def test_a_wrong_example_is_told_as_the_page_says(rehearsal_url: str, block: str) -> None:
    reply = await Task(rehearsal_url, block).ask("code", "say", "")
    (told,) = re.findall(r"^> (The rehearsal script .*): known.*$|^> (The .*known are:).*$", PAGE,
                         re.MULTILINE)  # fmt: skip
    assert reply.content[0].text.startswith(max(told))


def test_the_page_tells_of_everything() -> None:
    for name, known in Line.model_fields.items():
        assert f"`{known.alias or name}`" in PAGE or f'"{known.alias or name}"' in PAGE, name
    for fault in [*STATUS, *STREAM_FAULTS, "spend_limit"]:
        assert f"`{fault}`" in PAGE, fault
    for word in [*LANES.values(), *CALLERS.values()]:
        assert f"`{word}`" in PAGE, word
    assert len(BLOCKS) >= 11
