"""How much of the Algorithm a request gets when the person did not say.

Pure. Only clear small talk and short questions of knowledge are `minimal`: one call, no plan.
Everything else, whatever the language, goes to the planner; a wrong `minimal` cannot act,
a wrong plan only costs one call, so doubt means plan.
"""

from __future__ import annotations

import json
import re

from base.messages import Effort

MAX_CHARS = 240
FENCE = re.compile(r"^```rehearsal[^\n]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
SMALL_TALK = re.compile(
    r"(hi|hello|hey|good (morning|afternoon|evening|night)|thanks?( you)?|thank you|cheers|bye|"
    r"goodbye|ok(ay)?|hallo|danke|bonjour|merci|hola|gracias|ciao|ping)"
    r"( (there|all|everyone|team|again|so much|very much))?[\s!.,:)]*",
    re.IGNORECASE,
)
ASKS = re.compile(
    r"(what( is|'s| are| was| were| does| do)|who( is|'s| was| are| wrote| invented)|why|"
    r"how (many|much|does|do|is|far|long|old)|when (was|did|is)|where (is|was)|which|"
    r"explain|define|is it|are there|does|did|who are you|what can you do)\b",
    re.IGNORECASE,
)
#: Words that point at this machine, these files, the present, or at work to be done.
ACTS = re.compile(
    r"\b(add|analy[sz]e|append|apply|audit|backup|benchmark|build|change|check|clean|clone|"
    r"commit|compare|compile|configure|convert|copy|count|create|debug|delete|deploy|design|"
    r"download|draft|edit|enable|execute|export|fetch|find|fix|format|generate|implement|"
    r"import|inspect|install|investigate|list|look|make|measure|merge|migrate|monitor|move|open|"
    r"optimi[sz]e|parse|plan|prepare|profile|publish|push|read|refactor|remove|rename|repair|"
    r"replace|report|research|restart|review|rewrite|run|save|scan|search|send|set ?up|show|"
    r"sort|start|stop|store|summari[sz]e|test|translate|try|update|upload|verify|write|"
    r"file|files|folder|folders|directory|repo|repository|workspace|code ?base|project|server|"
    r"service|disk|log|logs|database|branch|this|these|that|those|here|our|my|me|us|now|today|"
    r"current|currently|latest|attached|above|below)\b",
    re.IGNORECASE,
)
POINTS = re.compile(r"[`/\\{}<>$|]|https?:|\w\.\w{1,4}\b|^\s*[-*\d]+[.)]?\s", re.MULTILINE)


def without_script(content: str) -> str:
    """`content` less its rehearsal blocks."""
    return FENCE.sub("", content)


def infer(content: str) -> Effort | None:
    """`minimal` for clear small talk or a short question of knowledge; None: let the planner say.

    A rehearsal block with lines for the planner, or with tool calls, means plan.
    """
    if any(_wants_plan(block) for block in FENCE.findall(content)):
        return None
    text = without_script(content).strip()
    if not text or len(text) > MAX_CHARS or len(text.splitlines()) > 2:
        return None
    if SMALL_TALK.fullmatch(text):
        return Effort.MINIMAL
    if POINTS.search(text) or ACTS.search(text):
        return None
    if text.endswith("?") and ASKS.match(text):
        return Effort.MINIMAL
    return None


def _wants_plan(block: str) -> bool:
    for line in block.splitlines():
        try:
            step = json.loads(line)
        except ValueError:
            continue
        if isinstance(step, dict) and (
            step.get("for") in {"planner", "join"}
            or "plan" in step
            or "tool" in step
            or "tools" in step
        ):
            return True
    return False
