"""TLS of the public API."""

from __future__ import annotations

import ssl

import pytest
import trustme
from aiohttp import ClientSession, TCPConnector, web

from agent.base.config import ConfigError
from coordinator.api.settings import TlsSettings


async def test_the_api_over_tls(tmp_path):
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(str(tmp_path / "key"))
    for part in issued.cert_chain_pems:
        part.write_to_path(str(tmp_path / "cert"), append=True)
    tls = TlsSettings(certificate=tmp_path / "cert", key=tmp_path / "key")
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.context()).start()
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    url = f"https://localhost:{runner.addresses[0][1]}/"
    async with ClientSession(connector=TCPConnector(ssl=trust)) as http, http.get(url) as answer:
        assert answer.status == 404
    await runner.cleanup()


def test_bad_files_are_named(tmp_path):
    (tmp_path / "cert").write_text("nothing")
    for key in ("cert", "missing"):
        with pytest.raises(ConfigError) as caught:
            TlsSettings(certificate=tmp_path / "cert", key=tmp_path / key).context()
        assert str(tmp_path / key) in str(caught.value)
