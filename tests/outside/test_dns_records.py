"""What is asked of the records of a name, and the change that it makes of what is there."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from base.errors import ConflictError
from base.verb_words import Ask
from base.verbs_outside import CdnPurge, DnsRemove, DnsSet, GithubSync, RateSet, record_name
from provision.dns_records import Record, difference, remaining, wanted

ZONE = "example.org"
GOOD: dict[type[Ask], dict[str, object]] = {
    RateSet: {"name": "x", "expression": "true", "requests": 10, "period_s": 60},
    CdnPurge: {"files": ["https://example.org/a"]},
    GithubSync: {"here": ["a"], "there": ["b"]},
}


def record(type: str, content: str, *, id: str = "1", **more: object) -> Record:
    return Record(type=type, name=f"www.{ZONE}", content=content, id=id, **more)  # type: ignore[arg-type]


def words(have: list[Record], **asked: object) -> list[str]:
    made = DnsSet(zone=ZONE, name="www", **asked)  # type: ignore[arg-type]
    same = [one for one in have if one.type == made.type]
    return difference(same, wanted(made, have)).words()


NEW = "www.example.org"


@pytest.mark.parametrize(
    ("have", "asked", "told"),
    [
        ([], {"type": "A", "values": ("192.0.2.1",)}, [f"add A {NEW} 192.0.2.1 ttl auto"]),
        ([record("A", "192.0.2.1")], {"type": "A", "values": ("192.0.2.1",)}, []),
        (
            [record("A", "192.0.2.1", proxied=True)],
            {"type": "A", "values": ("192.0.2.2",)},
            [f"change A {NEW} 192.0.2.1 ttl auto proxied to A {NEW} 192.0.2.2 ttl auto proxied"],
        ),
        (
            [record("A", "192.0.2.1"), record("A", "192.0.2.2", id="2")],
            {"type": "A", "values": ("192.0.2.1",)},
            [f"remove A {NEW} 192.0.2.2 ttl auto"],
        ),
        (
            [record("A", "192.0.2.1")],
            {"type": "A", "values": ("192.0.2.2",), "others": "keep"},
            [f"add A {NEW} 192.0.2.2 ttl auto"],
        ),
        (
            [record("TXT", '"v=spf1 -all"')],
            {"type": "TXT", "values": ("proof=1",)},
            [f"add TXT {NEW} proof=1 ttl auto"],
        ),
        ([record("TXT", '"a \\"b\\" " "c"')], {"type": "TXT", "values": ('a "b" c',)}, []),
        (
            [record("A", "192.0.2.1", ttl_s=300)],
            {"type": "A", "values": ("192.0.2.1",), "proxied": True},
            [f"change A {NEW} 192.0.2.1 ttl 300 s to A {NEW} 192.0.2.1 ttl auto proxied"],
        ),
        ([record("AAAA", "2001:db8::1")], {"type": "AAAA", "values": ("2001:DB8:0::1",)}, []),
        (
            [record("MX", "mail.example.net", priority=10)],
            {"type": "MX", "values": ("Mail.Example.net.",), "priority": 20},
            [
                f"change MX {NEW} 10 mail.example.net ttl auto to "
                f"MX {NEW} 20 mail.example.net ttl auto"
            ],
        ),
    ],
)
def test_the_change_in_words(have: list[Record], asked: dict[str, object], told: list[str]) -> None:
    assert words(have, **asked) == told


@pytest.mark.parametrize(
    ("there", "asked"),
    [("A", "CNAME"), ("AAAA", "CNAME"), ("CNAME", "A"), ("NS", "CNAME")],
)
def test_nothing_stands_beside_a_cname(there: str, asked: str) -> None:
    value = "192.0.2.1" if asked == "A" else "x.example.net"
    with pytest.raises(ConflictError, match=f"has a {there} record"):
        words([record(there, "y.example.net")], type=asked, values=(value,))
    assert words([record("TXT", "x")], type=asked, values=(value,)), "a TXT record may"


def test_remove_takes_only_what_is_named() -> None:
    have = [record("TXT", '"one"'), record("TXT", '"two"', id="2")]
    asked = DnsRemove(zone=ZONE, type="TXT", name="www", values=("one",))
    assert [one.id for one in remaining(asked, have)] == ["2"]
    assert remaining(DnsRemove(zone=ZONE, type="TXT", name="www"), have) == []


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("@", ZONE),
        ("www", f"www.{ZONE}"),
        (f"WWW.{ZONE}.", f"www.{ZONE}"),
        ("*", f"*.{ZONE}"),
        ("_acme-challenge.www", f"_acme-challenge.www.{ZONE}"),
        ("bücher", f"xn--bcher-kva.{ZONE}"),
        ("example.com", f"example.com.{ZONE}"),
    ],
)
def test_the_name_of_a_record(name: str, full: str) -> None:
    assert record_name(name, ZONE) == full


@pytest.mark.parametrize(
    "asked",
    [
        {"type": "A", "name": "www", "values": ["2001:db8::1"]},
        {"type": "A", "name": "www", "values": ["192.0.2.1; rm -rf /"]},
        {"type": "A", "name": "www", "values": []},
        {"type": "AAAA", "name": "www", "values": ["192.0.2.1"]},
        {"type": "CNAME", "name": "www", "values": ["192.0.2.1"]},
        {"type": "CNAME", "name": "www", "values": ["a.example.net", "b.example.net"]},
        {"type": "MX", "name": "@", "values": ["mail.example.net"]},
        {"type": "TXT", "name": "@", "values": ["a\nb"]},
        {"type": "TXT", "name": "@", "values": ["x"], "proxied": True},
        {"type": "A", "name": "www", "values": ["192.0.2.1"], "ttl_s": 30},
        {"type": "A", "name": "www", "values": ["192.0.2.1"], "priority": 1},
        {"type": "A", "name": "a.*.b", "values": ["192.0.2.1"]},
        {"type": "A", "name": "a b", "values": ["192.0.2.1"]},
        {"type": "A", "name": "../x", "values": ["192.0.2.1"]},
        {"type": "A", "name": "x" * 64, "values": ["192.0.2.1"]},
        {"type": "A", "name": "-", "values": ["192.0.2.1"]},
        {"type": "NS", "name": "www", "values": ["ns.example.net"]},
        {"type": "A", "name": "www", "values": ["192.0.2.1"], "command": "id"},
    ],
)
def test_what_is_no_record_is_refused(asked: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DnsSet.model_validate({"zone": ZONE, **asked})


@pytest.mark.parametrize(
    ("shape", "asked"),
    [
        (RateSet, {"name": "x", "expression": "true", "requests": 10, "period_s": 61}),
        (RateSet, {"name": "x", "expression": "a\nb", "requests": 10}),
        (RateSet, {"name": "a b", "expression": "true", "requests": 10}),
        (CdnPurge, {}),
        (CdnPurge, {"everything": True, "files": ["https://example.org/a"]}),
        (CdnPurge, {"files": ["file:///etc/passwd"]}),
        (GithubSync, {"here": ["../x"]}),
        (GithubSync, {"here": ["a/.git/config"]}),
        (GithubSync, {"here": ["a"], "there": ["a"]}),
    ],
)
def test_what_is_no_question_is_refused(shape: type[Ask], asked: dict[str, object]) -> None:
    named = {"name": "config"} if shape is GithubSync else {"zone": ZONE}
    with pytest.raises(ValidationError):
        shape.model_validate({**named, **asked})
    shape.model_validate({**named, **GOOD[shape]})
