"""Which addresses images may be fetched from."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from agent.images.pinning import OnlyThese, allowed, checked_url, pin
from agent.images.web_errors import SourceAway, SourceRefused


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "255.255.255.255", "::1", "::", "fe80::1", "fd00::1",
        "fec0::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::", "2002:a9fe:a9fe::1", "fd00:ec2::254",
    ],
)  # fmt: skip
def test_what_is_not_public(text: str) -> None:
    assert not allowed(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_what_is_public(text: str) -> None:
    assert allowed(ipaddress.ip_address(text))


def test_listed_networks_are_allowed_and_no_others() -> None:
    networks = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/16"))
    assert allowed(ipaddress.ip_address("10.1.1.1"), networks)
    assert allowed(ipaddress.ip_address("::ffff:10.1.1.1"), networks)
    assert allowed(ipaddress.ip_address("fd00::7"), networks)
    assert not allowed(ipaddress.ip_address("192.168.0.1"), networks)
    assert not allowed(ipaddress.ip_address("fd01::7"), networks)


@pytest.mark.parametrize(
    "text",
    [
        "file:///etc/shadow", "ftp://example.org/a", "gopher://example.org", "/etc/shadow", "", "http://", "http:///a",
        "https://user:canary@example.org/a", "https://user@example.org/a", "javascript:1", "http://[::1", "http://a:b/",
        "s3://bucket/key", "rbd:pool/image", "json:{}", "HTTP", "http://example.org:99999/",
    ],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(SourceRefused) as caught:
        checked_url(text)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0"])
async def test_every_way_to_write_this_host(host: str) -> None:
    with pytest.raises(SourceRefused) as caught:
        await pin(f"http://{host}:1/secret-path?key=1", site=False)
    assert "secret" not in str(caught.value)
    assert "key" not in str(caught.value)


async def test_a_name_with_one_bad_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    async def looked_up(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, 1, 6, "", (text, 80)) for text in ("93.184.216.34", "10.0.0.1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", looked_up)
    with pytest.raises(SourceRefused):
        await pin("http://example.org/a", site=False)


async def test_only_what_was_pinned_is_connected_to() -> None:
    pinned = await pin("http://127.0.0.1:9/a", site=True)
    found = await OnlyThese(pinned).resolve("another.example", 80)
    assert [each["host"] for each in found] == ["127.0.0.1"]


async def test_no_such_name() -> None:
    with pytest.raises(SourceAway):
        await pin("http://no-such-name.invalid/", site=False)


def test_redirects_stay_on_the_server() -> None:
    from agent.images.pinning import Pinned

    pinned = Pinned(checked_url("https://example.org/a/b"), ())
    assert str(pinned.leads_to("/c")) == "https://example.org/c"
    assert str(pinned.leads_to("c")) == "https://example.org/a/c"
    for other in ("http://example.org/c", "https://example.org:444/c", "//evil.example/c", "https://u:p@example.org/c",
                  "file:///etc/shadow", "https://evil.example/"):  # fmt: skip
        assert pinned.leads_to(other) is None
