"""A site that hosts join, and the control port of one of them, over real sockets and real certificates."""

from __future__ import annotations

import asyncio
import datetime
import json
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from agent.server.access import require_role
from agent.server.identity import Identity, join
from agent.wire.tls import TlsFiles, TlsIdentity, host_role
from agent.wire.transport import HttpTransport
from coordinator.enrolment.ca import Authority, key_pem, new_key
from coordinator.enrolment.service import Enrolment
from coordinator.state.database import Database

DAY = datetime.timedelta(days=1)
ROUTES = [
    ("GET", "/v1/host"),
    ("GET", "/v1/pools"),
    ("POST", "/v1/jobs"),
    ("GET", "/v1/jobs/o/s/1"),
    ("DELETE", "/v1/jobs/o/s/1"),
    ("POST", "/v1/identity/csr"),
    ("PUT", "/v1/identity/certificate"),
    ("GET", "/metrics"),
]


@dataclass
class Site:
    folder: Path
    db: Database
    authority: Authority
    identity: TlsIdentity
    enrolment: Enrolment
    port: int

    async def token(self, **options: object) -> str:
        return (await self.enrolment.token("127.0.0.1", self.port, **options)).line()  # type: ignore[arg-type]

    def holder(self, name: str, role: str, authority: Authority | None = None, **options: object) -> TlsIdentity:
        """Files with a certificate of any role, by any CA, with any dates; trusts the site's CA."""
        folder = self.folder / "holders" / name
        folder.mkdir(parents=True)
        files, key = TlsFiles.in_folder(folder), new_key()
        issued = (authority or self.authority).issue(role, key.public_key(), **options)  # type: ignore[arg-type]
        files.key.write_bytes(key_pem(key))
        files.certificate.write_text(issued.chain)
        files.ca.write_text(self.authority.ca_pem)
        return TlsIdentity(files)


class Control:
    """A control port with the shipped access rule and identity calls; counts what reaches a handler."""

    def __init__(self, identity: Identity) -> None:
        self.identity, self.reached, self.port = identity, 0, 0

    async def __aenter__(self) -> Control:
        app = web.Application(middlewares=[require_role(self.identity.denied)])
        app.router.add_post("/v1/identity/csr", self.csr)
        app.router.add_put("/v1/identity/certificate", self.certificate)
        app.router.add_put("/v1/identity/denied", self.deny)
        app.router.add_get("/slow", self.slow)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_route("*", "/{tail:.*}", self.any)
        self.runner = web.AppRunner(app, access_log=None)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=self.identity.tls.server_context()).start()
        self.port = self.runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()

    async def any(self, request: web.Request) -> web.Response:
        self.reached += 1
        return web.json_response({"path": request.path})

    async def metrics(self, _request: web.Request) -> web.Response:
        self.reached += 1
        return web.Response(text="up 1\n")

    async def slow(self, _request: web.Request) -> web.Response:
        await asyncio.sleep(0.3)
        return web.json_response({})

    async def csr(self, _request: web.Request) -> web.Response:
        self.reached += 1
        return web.json_response({"csr": self.identity.csr()})

    async def certificate(self, request: web.Request) -> web.Response:
        self.reached += 1
        body = json.loads(await request.read() or b"{}")
        if body:
            await self.identity.install(body["certificate"], body["ca"])
        return web.json_response({})

    async def deny(self, request: web.Request) -> web.Response:
        self.identity.denied.replace((await request.json())["serials"])
        return web.json_response({})


async def enrolled(site: Site, name: str = "host-a", folder: str = "agent") -> Identity:
    return await join(site.folder / folder, await site.token(), name, control_port=9001, data_port=9002)


def serial_of(identity: TlsIdentity) -> str:
    from cryptography import x509

    return f"{x509.load_pem_x509_certificate(identity.files.certificate.read_bytes()).serial_number:x}"


async def call(
    site_identity: TlsIdentity, port: int, method: str = "GET", path: str = "/v1/host", role: str = ""
) -> object:
    transport = HttpTransport("127.0.0.1", port, role or host_role("host-a"), site_identity)
    try:
        return await transport.call(method, path, timeout=30)
    finally:
        await transport.close()
