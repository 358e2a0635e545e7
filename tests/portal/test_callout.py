"""Calls to addresses that somebody else chose: which may be called, and what a call tells."""

from __future__ import annotations

import ipaddress

import pytest

from base.errors import InputError
from portal import callout
from tests.portal.receiver import Receiver, receiving


def test_what_a_name_may_lead_to() -> None:
    public = ("93.184.216.34", "2606:2800:220:1::1")
    private = ("127.0.0.1", "10.1.2.3", "192.168.0.1", "::1", "fd00::1", "::ffff:127.0.0.1")
    never = (
        "169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "ff02::1", "::",
        "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "255.255.255.255",
    )  # fmt: skip
    for text in public:
        assert callout.may_call(ipaddress.ip_address(text), private=False), text
    for text in private:
        assert not callout.may_call(ipaddress.ip_address(text), private=False), text
        assert callout.may_call(ipaddress.ip_address(text), private=True), text
    for text in (*never, "64:ff9b::a00:1"):
        assert not callout.may_call(ipaddress.ip_address(text), private=False), text
    for text in never:
        assert not callout.may_call(ipaddress.ip_address(text), private=True), text
    with pytest.raises(InputError):
        callout.needs_leave("https://0.0.0.0/")


async def test_a_name_is_judged_when_it_is_called(receiver: Receiver) -> None:
    url = receiver.url.replace("127.0.0.1", "localhost")
    async with callout.client() as by:
        said = await callout.post(by, url, b"{}", {}, private=False)
        assert said.status is None
        assert said.error is not None
        assert "no public address" in said.error
        assert receiver.got == []
        said = await callout.post(by, url, b"{}", {}, private=True)
        assert said.ok
        assert receiver.got[0][0]["host"].startswith("localhost:")
        gone = await callout.post(by, "http://127.0.0.1:1/", b"{}", {}, private=True)
        assert gone.error == "it takes no connections"


async def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    with receiving() as elsewhere:
        receiver.always, receiver.location = 302, elsewhere.url
        async with callout.client() as by:
            said = await callout.post(by, receiver.url, b"{}", {}, private=True)
        assert (said.status, said.ok) == (302, False)
        assert said.error is not None
        assert "redirects" in said.error
        assert elsewhere.got == []
