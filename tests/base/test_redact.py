"""Secrets in text become `[secret]`, ordinary code stays as it is, and no text takes long."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from base import redact as module
from base.redact import Flow, redact, remember

PEM = (
    "-----BEGIN {0}PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj\n"
    "AgEAAoIBAQDCanaryCanaryCanary0123456789+/=\n-----END {0}PRIVATE KEY-----"
)
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """What a test made known is unknown to the next."""
    before = dict(module._known)
    module._known.clear()
    yield
    module._known.clear()
    module._known.update(before)


# Known values ----------------------------------------------------------------------------------


def test_a_value_that_was_handed_out_shows_in_none_of_its_spellings() -> None:
    value = 'plain words & "quotes" of ä\nkey'
    remember(value)
    for shown in (value, quote(value), json.dumps({"v": value}), json.dumps(value)):
        assert "quotes" not in redact(f"it was {shown} again")
    assert redact(value) == "[secret]"


def test_the_longer_of_two_values_goes_first_and_short_ones_are_not_known() -> None:
    for value in ("canaryvalue", "canaryvalue-and-more", "seven77", ""):
        remember(value)
    assert redact("a canaryvalue-and-more b canaryvalue c seven77") == (
        "a [secret] b [secret] c seven77"
    )


def test_a_value_that_was_cut_short_does_not_show_its_beginning() -> None:
    remember("mumblemumblecanary")
    assert redact("said mumblemumbleca…") == "said [secret]…"
    assert redact("said mumble…") == "said mumble…"


# Shapes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "canary"),
    [
        (text, canary)
        for canary, texts in {
            "sk-ant-api03-Canary_0123456789-abc": ("invalid x-api-key: {}", "{}", "a\\n{}\\n"),
            "sk-proj-Canary0123456789abcdef": ("{} is no key", "key={}&x=1"),
            "ghp_Canary0123456789abcdefghijklmnopqrst": ("git clone with {}", "\\n{}"),
            "github_pat_11CANARY0123456789_abcdefghij": ("{}",),
            "ait_Canary-0123456789_abcdefghijklmnop": ("the token {} of the API", "\\n{}"),
            "AKIACANARY0123456789": ("id {}.", '"{}"'),
            "wJalrXUtnFEMI/K7MDENG/CanaryEXAMPLEKEY00": (
                "aws_secret_access_key = {}", "AWS_SECRET_ACCESS_KEY={}", '"SecretAccessKey": "{}"',
            ),
            JWT: ("Authorization: Bearer {}", "?token={}", "{}"),
            "xoxb-0123456789-canary": ("{}",),
            "glpat-Canary0123456789_abcd": ("{}",),
            "npm_Canary0123456789abcdefghijklmnopqrst": ("//registry/:_authToken={}",),
            "Q2FuYXJ5MDEyMzQ1Njc4OQ==": ("Authorization: Basic {}", "'authorization': 'Basic {}'"),
            "c4nary0123456789abcdef": ("bearer {}", "curl -H 'X-Api-Key: {}'"),
            "hunter2canary": (
                "password={}", "password: {}", '"password": "{}"', "PASSWORD='{}'", "passwd={}",
                "db_password: {}", "DB_PASSWORD={}", "secret: {}", "client_secret={}", "token={}",
                'token: str = "{}"', "api_key={}&x=1", "--password {} -v", "--auth-token={}",
                "postgresql://ai:{}@db.example/x", "redis://:{}@h:6379/0", "https://u:{}@host",
                '{{\\"password\\": \\"{}\\"}}', "config['token'] = '{}'", 'password => "{}"',
                "password={};x", "(password={})", 'if password == "{}":', "passphrase = '{}'",
            ),
            "correct horse 7 battery": ("passphrase: '{}'",),
            "p@ss/w0rd!": ('password="{}"', "password: {}"),
            "48151623421": ("password={}",),
        }.items()
        for text in texts
    ],
)  # fmt: skip
def test_texts_shaped_like_keys_are_hidden(text: str, canary: str) -> None:
    given = text.replace("{{", "{").replace("}}", "}").replace("{}", canary)
    shown = redact(f"before {given} after")
    assert canary not in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    assert "[secret]" in shown


@pytest.mark.parametrize("kind", ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "])
def test_private_keys_are_hidden_whole_cut_or_escaped(kind: str) -> None:
    pem = PEM.format(kind)
    for given in (pem, pem[:150], json.dumps(pem), repr(pem), pem.replace("\n", "\r\n")):
        shown = redact(f"x {given}")
        assert "Canary" not in shown
        assert "MII" not in shown


def test_headers_inside_a_private_key_do_not_save_it() -> None:
    headed = PEM.format("RSA ").replace(
        "KEY-----\nM", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00FF\n\nM", 1
    )
    assert redact(headed) == "[secret]"


# Ordinary text ---------------------------------------------------------------------------------

ORDINARY = """\
password = get_password()
token: str
token: str | None = None
tokens = 1500
max_tokens=8192
input_tokens=1234 output_tokens=99 cost_usd=0.0123
token = request.headers.get("Authorization")
password = os.environ["DB_PASSWORD"]
password: ${DB_PASSWORD}
password: "{{ vault_password }}"
export API_KEY=$(cat /run/secrets/key1)
api_key=settings.api_key.get_secret_value()
secret = secrets.token_hex(32)
def login(user: str, password: str, *, token: SecretStr | None = None) -> bool:
return Login(user=user, password=password, secret=secret)
<input type="password" name="password" placeholder="Your password">
"password": {"type": "string", "minLength": 8}
"token": "string", "secret": "required"
self._token = token2
token = tokens[index + 1]
if token == "(" or token == ")":
if not secret: raise SettingsError(["no secret"])
dsn = f"postgresql://{user}:{password}@{host}:{port}/{name}"
postgresql://$USER:$PASSWORD@localhost/x
postgresql://ai_infra@/ai_infra?host=/run/x
http://127.0.0.1:8000/api/tasks?after=1234567890
git@github.com:owner/repository.git
root:x:0:0:root:/root:/bin/bash
ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGCanaryCanaryCanary user@host
sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
commit 132f317c0a40e8f2d1d4b5a6978ce4c4aeaac0683
task_id=3f2504e0-4f89-11d3-9a0c-0305e82c3301
if "-----BEGIN PRIVATE KEY-----" in text: refuse()
const token = await getToken({ audience: "api" });
secret: SecretStr = Field(..., alias="secret")
private_key: rsa.RSAPrivateKey
access_key = bucket/key1
PWD=/home/user1/project2
ssl_certificate_key /etc/letsencrypt/live/example.org/privkey.pem;
token_path: /var/lib/token1
The password must have at least 12 characters; a token: see page 3.
sk-learn and sk-cube-grid-animation-delay are no keys
import secrets; print(secrets.choice("abc123"))
.password-input { color: #ff0000; }
SELECT password_hash FROM users WHERE token = $1
basic responsibilities of the bearer of this letter
api_key: ANTHROPIC_API_KEY
token=<your-token-1>
password=********
AKIA is how an access key id begins; eyJ is how a JWT begins
kubectl create secret generic db-1 --from-file=./password.txt
token type: Bearer, encoding: utf-8, hash: sha256
secret = sha256(data)
password=%s token=%(token1)s
git checkout -b token-refresh-2
x = {"token": token, "n": 5}
"""


@pytest.mark.parametrize("line", ORDINARY.splitlines())
def test_ordinary_lines_stay_as_they_are(line: str) -> None:
    remember("a-known-value-of-9")
    assert redact(line) == line


def test_our_own_source_stays_as_it_is() -> None:
    from pathlib import Path

    touched = [
        (str(path), line)
        for folder in ("base", "agents", "supervisor", "portal", "pai", "workers")
        for path in (Path(__file__).parents[2] / folder).rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if redact(line) != line
    ]
    assert touched == []


# Time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unit",
    [
        "a", "A", "0", "-", " ", "sk-", "eyJ", "eyJa.", "://a:", "://", "password=", "token ",
        'password="', "token: a", "bearer ", "-----BEGIN PRIVATE KEY-----", "-----BEGIN ",
        "-----BEGIN PRIVATE KEY-----\n\n\n", "authorization: ", "--token ", "secret_", "a.b",
        "password:x y", "api-key: 'a", "\\\\", "\\n", "…", "xox", 'token:\\"', "AKIA",
    ],
)  # fmt: skip
def test_a_million_characters_take_a_bounded_time(unit: str) -> None:
    """Quadratic would be minutes; twice the text may take some more than twice the time."""
    remember("some known value of ours")
    text = (unit * (1_000_000 // len(unit) + 1))[:1_000_000]
    began_s = time.process_time()
    redact(text)
    assert time.process_time() - began_s < 10.0


# Text in pieces --------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_a_secret_that_streams_in_pieces_never_shows(step: int) -> None:
    remember("four known words here")
    text = (
        f"I found password: hunter2canary in it.\nAnd {PEM.format('RSA ')} too, token = 'c4narytok'"
        " and\nfour known words here and AKIACANARY0123456789 as well as curl --token c4nary99 x"
    )
    flow, shown = Flow(), ""
    for start in range(0, len(text), step):
        shown += flow.feed(text[start : start + step])
        assert "anary" not in shown
    shown += flow.end()
    assert shown == redact(text)
    assert "known words" not in shown


def test_ordinary_text_streams_word_by_word() -> None:
    flow = Flow()
    assert flow.feed("Hello ") == "Hello "
    assert flow.feed("wor") == ""
    assert flow.feed("ld and\nmore ") == "world and\nmore "
    assert flow.feed("x" * 40_000) == "x" * 40_000
    assert flow.end() == ""
