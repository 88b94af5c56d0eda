"""Who is believed about where a call comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request
from pydantic import ValidationError

from coordinator.api.proxies import Proxies
from coordinator.api.settings import ApiSettings
from tests.unit.coordinator.api.apitoy import served

TOLD = {
    "X-Forwarded-Proto": "https", "X-Forwarded-Host": "cloud.example", "X-Forwarded-Prefix": "/volume",
    "X-Forwarded-For": "198.51.100.7",
}  # fmt: skip


async def link(tmp_path: Path, headers: dict[str, str], *trusted: str) -> str:
    """What the list of versions names as its own address, without what we listen on."""
    async with served(tmp_path, trusted_proxies=list(trusted)) as session, session.get("/", headers=headers) as answer:
        href: str = (await answer.json())["versions"][0]["links"][0]["href"]
        return href.replace(str(session._base_url).rstrip("/"), "OURS")


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, "https://cloud.example/volume/v3/"),
        ({"X-Forwarded-Host": "evil.example, cloud.example"}, "https://cloud.example/volume/v3/"),
        ({"X-Forwarded-Port": "8443"}, "https://cloud.example:8443/volume/v3/"),
        ({"X-Forwarded-Port": "443", "X-Forwarded-Prefix": "/"}, "https://cloud.example/v3/"),
        ({"X-Forwarded-Host": "[2001:db8::1]:9000"}, "https://[2001:db8::1]:9000/volume/v3/"),
        ({"X-Forwarded-Proto": "gopher"}, "http://cloud.example/volume/v3/"),
        ({"X-Forwarded-Prefix": '/"><script>'}, "https://cloud.example/v3/"),
        ({"X-Forwarded-Prefix": "//evil.example"}, "https://cloud.example/v3/"),
        ({"X-Forwarded-Host": "a b", "X-Forwarded-Proto": "http", "X-Forwarded-Prefix": ""}, "OURS/v3/"),
    ],
)
async def test_links_name_what_the_proxy_says(tmp_path: Path, more: dict[str, str], wanted: str) -> None:
    assert await link(tmp_path, {**TOLD, **more}, "127.0.0.0/8") == wanted


@pytest.mark.parametrize("trusted", [(), ("192.0.2.10",), ("::1/128",)])
async def test_nobody_else_is_believed(tmp_path: Path, trusted: tuple[str, ...]) -> None:
    assert await link(tmp_path, TOLD, *trusted) == "OURS/v3/"


@pytest.mark.parametrize(
    ("told", "caller"),
    [
        ([], "127.0.0.1"),
        (["198.51.100.7"], "198.51.100.7"),
        (["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
        (["203.0.113.9, 198.51.100.7", "127.0.0.2"], "198.51.100.7"),
        (["127.0.0.2, 127.0.0.3"], "127.0.0.2"),
        (["made up, 127.0.0.2"], "127.0.0.2"),
        (["2001:db8::7"], "2001:db8::7"),
    ],
)
def test_the_caller_is_the_last_one_who_is_no_proxy(told: list[str], caller: str) -> None:
    transport = type("At", (), {"get_extra_info": lambda _self, name: ("127.0.0.1", 1) if name == "peername" else None})
    request = make_mocked_request("GET", "/", transport=transport())
    request = request.clone(headers=[("X-Forwarded-For", line) for line in told])
    assert Proxies(["127.0.0.0/8"]).caller(request) == caller
    assert Proxies([]).caller(request) == "127.0.0.1"


def test_what_is_no_network_is_refused() -> None:
    for bad in ("10.0.0.1/8", "proxy.example", ""):
        with pytest.raises(ValidationError, match="trusted_proxies"):
            ApiSettings(trusted_proxies=[bad])
