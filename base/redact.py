"""Secrets never reach a log, a terminal or the audit: `redact` replaces them by `[secret]`.

Two nets: values that were handed out by `base.secrets` (8 characters and more, also as they look
in a URL or in JSON), and texts shaped like keys. Chat messages and tool results that go to the
model are data and never pass here. Every pattern is linear: bounded or possessive repeats only.
"""

from __future__ import annotations

import json
import re
from urllib.parse import quote, quote_plus

MARK = "[secret]"
KNOWN_MIN_CHARS = 8
KNOWN_MAX = 256
PLAIN_MIN_CHARS = 6

#: Handed-out values and their spellings, oldest first.
_known: dict[str, None] = {}

#: Not in the middle of a word; an escaped newline before it is no word.
EDGE = r"(?:(?<![A-Za-z0-9_-])|(?<=\\[nrt]))"
SHAPED = re.compile(
    rf"""
      sk-ant-[A-Za-z0-9_-]{{8,}}+
    | {EDGE}(?:
        sk-(?=[A-Za-z_-]{{0,40}}[0-9])[A-Za-z0-9_-]{{20,}}+
      | (?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{{16,}}+
      | (?:gsk|whsec|hf|npm|glsa|cfut|cfat)_[A-Za-z0-9_]{{28,}}+
      | (?:xai|pplx|glpat|pypi|r8)-(?=[A-Za-z_-]{{0,40}}[0-9])[A-Za-z0-9_-]{{20,}}+
      | ait_[A-Za-z0-9_-]{{20,}}+
      | gh[pousr]_[A-Za-z0-9]{{20,}}+
      | github_pat_[A-Za-z0-9_]{{20,}}+
      | AIza[A-Za-z0-9_-]{{30,}}+
      | xox[abeoprs]-[A-Za-z0-9-]{{10,}}+
      | (?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{{16}}(?![A-Za-z0-9])
      | AGE-SECRET-KEY-1[A-Z0-9]{{50,}}+
      | SG\.[A-Za-z0-9_-]{{16,64}}\.[A-Za-z0-9_-]{{16,64}}
      | eyJ[A-Za-z0-9_-]{{6,}}+\.eyJ[A-Za-z0-9_-]{{6,}}+\.[A-Za-z0-9_-]*+
      )
    | -----BEGIN\ (?:[A-Z0-9]{{2,12}}\ ){{0,3}}PRIVATE\ KEY(?:\ BLOCK)?-----
      (?:\s|\\[nr]|(?:Proc-Type|DEK-Info|Version|Comment):\ [^\n\\]{{0,200}})*+
      [A-Za-z0-9+/=]{{16}}[A-Za-z0-9+/=\s\\]*+
      (?:-----END\ [A-Z0-9 ]{{0,40}}-----)?
    """,
    re.VERBOSE,
)
#: The password in `scheme://user:password@host`; a template's braces or dollar are none.
IN_URL = re.compile(r"(://[^\s:/@\"'<>{}$]{0,256}:)([^\s/@?#\"'<>{}$]{1,512})(?=@)")
BEARER = re.compile(
    r"(?i)(authorization[\"']?[ \t]{0,4}[:=][ \t]{0,4}[\"']?(?:bearer|basic|token)[ \t]{1,4}"
    r"|bearer[ \t]{1,4}(?=[A-Za-z._~+/=-]{0,60}[0-9]))([A-Za-z0-9._~+/=-]{16,}+)"
)
NAMED = (
    r"(password|passwd|passphrase|pwd|secret|secret[_-]?access[_-]?key|secret[_-]?key|api[_-]?key"
    r"|access[_-]?key|account[_-]?key|private[_-]?key|encryption[_-]?key|token|credentials?|[_-]pat)"
)
VALUE = (
    r"(?:(\\?[\"'`])((?:(?!\\?[\"'`])[^\r\n]){4,512}+)(?=\\?[\"'`])"
    r"|((?:[^\s\"'`,;)&}\]<>]|&(?![A-Za-z_][A-Za-z0-9_.-]{0,40}=)){6,512}+))"
)
ASSIGNED = re.compile(
    rf"(?i){NAMED}(\\?[\"'`]?\]?[ \t]{{0,8}}"
    r"(?::[ \t]{0,2}[A-Za-z_][A-Za-z0-9_.\[\]| ]{0,40}=|=>|:=|={1,3}|:)[ \t]{0,8}"
    rf"(?:[bru]{{1,2}}(?=[\"']))?){VALUE}"
)
FLAG = re.compile(rf"(?i)(?<=-){NAMED}([ \t]{{1,4}}){VALUE}")
FLAG_START = re.compile(r"(?:^|[\s\"'=])--?[A-Za-z0-9-]{0,24}$")

#: From such a word on, a line is held until it ends.
SUSPECT = re.compile(rf"(?i){NAMED}|bearer|-----BEGIN")
KEY_BLOCK = "-----BEGIN"
KEY_BLOCK_END = re.compile(r"-----END [A-Z0-9 ]{0,40}-----")
HELD_MAX_CHARS = 16_384

#: What a value of code looks like: an expression, a template, a path, an address, a word.
EXPRESSION = re.compile(r"[$<{%*@(\[/.~\\]|[A-Za-z][A-Za-z0-9+.-]*://|[^({\[]*[({\[]")
WORDS = re.compile(r"[A-Za-z_./:|\\ -]+")
PATH = re.compile(r"[a-z0-9_.-]{1,64}(?:/[a-z0-9_.-]{1,64}){1,16}")
PLACEHOLDERS = {"password", "passwd", "pass", "pw", "pwd", "secret", "token", "...", "***", "xxx"}
DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
NUMBERED = re.compile(
    r"(?i)(?:u?int|float|bytes?|str|utf|sha|md|base|aes|hs|rs|es|uuid|oauth|arg|param|value|var"
    r"|tokens?|password|passwd|pwd|pass|secret|key|user|test|example|version|v)[_-]?[0-9.]+"
)


def remember(value: str) -> None:
    """From now on `redact` replaces `value`; shorter than 8 characters it is ignored."""
    for spelling in (value, quote(value, safe=""), quote_plus(value), json.dumps(value)[1:-1]):
        if len(spelling) >= KNOWN_MIN_CHARS:
            _known.pop(spelling, None)
            _known[spelling] = None
    while len(_known) > KNOWN_MAX:
        del _known[next(iter(_known))]


def redact(text: str) -> str:
    """`text` with every known or key-shaped secret replaced by `[secret]`. Never raises."""
    for value in sorted(_known, key=len, reverse=True):
        if value in text:
            text = text.replace(value, MARK)
        elif text.endswith("…"):
            text = _uncut(text, value)
    text = SHAPED.sub(MARK, text)
    if "://" in text:
        text = IN_URL.sub(_in_url, text)
    text = BEARER.sub(rf"\1{MARK}", text)
    text = ASSIGNED.sub(_assigned, text)
    return FLAG.sub(_flag, text) if "--" in text else text


class Flow:
    """`redact` for text that comes in pieces: what could be the start of a secret is held back."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        """What may be shown by now."""
        text = self._held + piece
        cut = len(text)
        line = text.rfind("\n") + 1
        if found := SUSPECT.search(text, line):
            cut = min(cut, found.start())
        while cut > 0 and not text[cut - 1].isspace():
            cut -= 1
        if (begun := text.rfind(KEY_BLOCK)) >= 0:
            ended = KEY_BLOCK_END.search(text, begun)
            if ended is None or begun < cut < ended.end():
                cut = min(cut, begun)
        for value in _known:
            cut = min(cut, _begun(text, value, cut))
        if len(text) - cut > HELD_MAX_CHARS:
            cut = len(text)
        self._held = text[cut:]
        return redact(text[:cut])

    def end(self) -> str:
        """All that was held back."""
        held, self._held = self._held, ""
        return redact(held)


def _uncut(text: str, value: str) -> str:
    """`text` that was cut short in the middle of `value`, without the piece of it."""
    body = text[:-1]
    for size in range(min(len(value) - 1, len(body)), KNOWN_MIN_CHARS - 1, -1):
        if body.endswith(value[:size]):
            return body[:-size] + MARK + "…"
    return text


def _begun(text: str, value: str, cut: int) -> int:
    """Where a `value` with white space begins that `cut` or the end of `text` would part;
    `cut`: nowhere."""
    if not any(char.isspace() for char in value):
        return cut
    for size in range(min(len(value) - 1, len(text)), 0, -1):
        if text.endswith(value[:size]):
            cut = min(cut, len(text) - size)
            break
    begin = text.find(value, max(0, cut - len(value) + 1), cut + len(value) - 1)
    return begin if 0 <= begin < cut else cut


def _in_url(match: re.Match[str]) -> str:
    return match[0] if match[2] in PLACEHOLDERS else match[1] + MARK


def _assigned(match: re.Match[str]) -> str:
    name, between, quoted, inside, bare = match.groups()
    value = inside if quoted else bare
    if not _is_literal(name.lower(), value):
        return match[0]
    return f"{name}{between}{quoted or ''}{MARK}"


def _flag(match: re.Match[str]) -> str:
    before = match.string[max(0, match.start() - 30) : match.start()]
    return _assigned(match) if FLAG_START.search(before) else match[0]


def _is_literal(name: str, value: str) -> bool:
    """Whether `value` is a secret written out, not code that names one."""
    if len(value) < PLAIN_MIN_CHARS or MARK in value or EXPRESSION.match(value):
        return False
    if " " in value or "\t" in value:
        return "phrase" in name
    if value.isdigit():
        return name.startswith("pass")
    if any(form.fullmatch(value) for form in (WORDS, DOTTED, NUMBERED, PATH)):
        return False
    return len(set(value)) > 2
