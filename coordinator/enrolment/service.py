"""Enrolling hosts: tokens, signing, bundles. Everything that must hold together happens in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from pydantic import SecretStr
from sqlalchemy import Connection

from agent.wire.errors import HostEnrolled, TokenRefused
from agent.wire.joining import EnrolAnswer, EnrolRequest, HostBundle, JoinToken
from agent.wire.tls import METRICS, host_role
from coordinator.enrolment.authority import Issued, Signs
from coordinator.state import enrolment as rows
from coordinator.state.database import Database
from coordinator.state.enrolment import CertificateRow, EnrolledHost
from coordinator.state.tables.columns import utcnow

T = TypeVar("T")
TOKEN_LIFETIME_S = 3600.0


class Enrolment:
    """What the enrolment port, the API and the CLI call."""

    def __init__(self, authority: Signs, db: Database) -> None:
        self.authority = authority
        self._db = db

    async def token(
        self, address: str, port: int, *, lifetime_s: float = TOKEN_LIFETIME_S, host: str | None = None
    ) -> JoinToken:
        """A new one-time token for the enrolment port at `address:port`; `.line()` is what the operator carries.

        `host` binds it to one name and lets that host be set up anew (its old certificates are revoked).
        """
        token_id, secret = await self._db.write(lambda conn: rows.create_token(conn, lifetime_s, host))
        return JoinToken(a=address, p=port, f=self.authority.fingerprint, i=token_id, s=SecretStr(secret))

    async def enrol(self, request: EnrolRequest, remote: str) -> EnrolAnswer:
        """Spend a token on a host's key. The same again gives the same answer; `TokenRefused`, `HostEnrolled`."""
        secret = request.secret.get_secret_value()
        if await self._db.read(lambda conn: rows.find_token(conn, request.token_id, secret)) is None:
            raise TokenRefused
        issued = await asyncio.to_thread(self.authority.sign_csr, request.csr, host_role(request.name))
        host = EnrolledHost(
            request.name,
            request.address or remote,
            request.control_port,
            request.data_port,
            issued.spki_sha256,
            utcnow(),
        )
        chain = await self._db.write(lambda conn: _enrol(conn, request.token_id, secret, host, issued))
        return EnrolAnswer(host_id=request.name, certificate=chain, ca=self.authority.ca_pem)

    async def bundle(self, name: str, address: str, control_port: int, data_port: int) -> HostBundle:
        """Key, certificate and CA for a host in one file; replaces whatever the name was enrolled with."""
        key, issued = await asyncio.to_thread(self.authority.with_key, host_role(name))
        host = EnrolledHost(name, address, control_port, data_port, issued.spki_sha256, utcnow())
        await self._db.write(lambda conn: _enter(conn, host, issued))
        return HostBundle(name=name, key=SecretStr(key), certificate=issued.chain, ca=self.authority.ca_pem)

    async def metrics_bundle(self, name: str) -> HostBundle:
        """Key and certificate that may read `/metrics` on every agent, and nothing else."""
        key, issued = await asyncio.to_thread(self.authority.with_key, METRICS)
        row = replace(certificate_row(issued, None), installed_at=utcnow())
        await self._db.write(lambda conn: rows.add_certificate(conn, row))
        return HostBundle(name=name, key=SecretStr(key), certificate=issued.chain, ca=self.authority.ca_pem)

    async def sign_for(self, host: EnrolledHost, csr: str) -> CertificateRow | None:
        """Sign a renewal and record it as not installed yet; None when the request is for another key."""
        if await asyncio.to_thread(self.authority.csr_digest, csr) != host.key_sha256:
            return None
        issued = await asyncio.to_thread(self.authority.sign_csr, csr, host_role(host.name))
        row = certificate_row(issued, host.name)
        await self._db.write(lambda conn: rows.add_certificate(conn, row))
        return row

    async def read(self, fn: Callable[[Connection], T]) -> T:
        return await self._db.read(fn)

    async def installed(self, serial: str) -> None:
        """The agent confirmed that it uses this certificate."""
        await self._db.write(lambda conn: rows.mark_installed(conn, serial))


def certificate_row(issued: Issued, host: str | None) -> CertificateRow:
    """The row of a fresh certificate, not installed yet."""
    return CertificateRow(
        serial=issued.serial,
        role=issued.role,
        host=host,
        key_sha256=issued.spki_sha256,
        chain=issued.chain,
        not_before=issued.not_before,
        not_after=issued.not_after,
    )


def _enrol(conn: Connection, token_id: str, secret: str, host: EnrolledHost, issued: Issued) -> str:
    token = rows.find_token(conn, token_id, secret)
    if token is None or not rows.token_allows(token, host.name, host.key_sha256):
        raise TokenRefused
    if token["used_at"] is not None:
        known = rows.current_certificate(conn, issued.role, host.key_sha256)
        if known is None:
            raise TokenRefused
        return known.chain
    other = rows.host(conn, host.name)
    if other is not None and other.key_sha256 != host.key_sha256 and token["host"] != host.name:
        raise HostEnrolled(host=host.name)
    if not rows.use_token(conn, token_id, host.name, host.key_sha256):
        raise TokenRefused
    return _enter(conn, host, issued)


def _enter(conn: Connection, host: EnrolledHost, issued: Issued) -> str:
    rows.put_host(conn, host)
    rows.revoke_host(conn, host.name, keep_key=host.key_sha256)
    rows.add_certificate(conn, replace(certificate_row(issued, host.name), installed_at=utcnow()))
    return issued.chain
