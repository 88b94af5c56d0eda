"""Mutual TLS between coordinator and agents: own CA only, TLS 1.3 only, names by role.

A certificate says who its holder is in one URI, `urn:brickyard:<role>` (`coordinator`, `host:NAME`, `metrics`).
A client asks for a role, not for a DNS name: `server_name(role)` goes out as SNI and stands as DNS name in the
certificate, so OpenSSL refuses another host's certificate in the handshake; a second check of the URI, of the end
of validity and of the deny list runs before the handshake counts as done, so no byte of a request leaves early.
"""

from __future__ import annotations

import hashlib
import ssl
import time
import weakref
from calendar import timegm
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agent.wire.errors import IdentityBroken, IdentityMissing, PeerRefused

if TYPE_CHECKING:
    from asyncio import BaseTransport

COORDINATOR = "coordinator"
METRICS = "metrics"
URN = "urn:brickyard:"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def host_role(name: str) -> str:
    """The role of a host's certificate."""
    return f"host:{name}"


def server_name(role: str) -> str:
    """The DNS name that stands for a role: a digest, since host names may hold what DNS names must not."""
    return hashlib.sha256(role.encode()).hexdigest()[:40] + ".brickyard.internal"


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end. `serial` is lower-case hex without leading zeros; `not_after` in seconds (epoch)."""

    role: str
    serial: str
    not_after: float

    def check(self, denied: DenyList) -> None:
        """Raise `PeerRefused` when the certificate has run out since, or is on the deny list."""
        if self.not_after < time.time():
            raise PeerRefused(reason=f"it ran out ({self.role})")
        if self.serial in denied:
            raise PeerRefused(reason=f"it is revoked ({self.role}, serial {self.serial})")


class DenyList(Protocol):
    def __contains__(self, serial: object, /) -> bool: ...


_peers: weakref.WeakKeyDictionary[ssl.SSLObject, Peer] = weakref.WeakKeyDictionary()


def peer_of(source: ssl.SSLObject | BaseTransport | None) -> Peer:
    """The verified peer of a connection; `PeerRefused` when it showed no certificate of ours."""
    tls = source if isinstance(source, ssl.SSLObject) else source and source.get_extra_info("ssl_object")
    if not isinstance(tls, ssl.SSLObject):
        raise PeerRefused(reason="there is none, or the connection is gone")
    known = _peers.get(tls)
    if known is None:
        known = _peers[tls] = _read_peer(tls.getpeercert())
    return known


def peer_role(source: ssl.SSLObject | BaseTransport | None) -> str:
    """`coordinator`, `host:NAME` or `metrics`; `PeerRefused` without a certificate of ours."""
    return peer_of(source).role


def _read_peer(cert: Any) -> Peer:
    if not cert:
        raise PeerRefused(reason="none was shown")
    uris = [value for kind, value in cert.get("subjectAltName", ()) if kind == "URI"]
    if len(uris) != 1 or not uris[0].startswith(URN):
        raise PeerRefused(reason="it names no role")
    serial = cert["serialNumber"].lower().lstrip("0")
    return Peer(uris[0].removeprefix(URN), serial, _seconds(cert["notAfter"]))


def _seconds(text: str) -> float:
    """Unix time of `Nov 25 22:40:00 2026 GMT`. (The library's own way loads the regular expressions of all dates.)"""
    month, day, clock, year, _ = text.split()
    hours, minutes, seconds = (int(part) for part in clock.split(":"))
    return float(timegm((int(year), _MONTHS.index(month) + 1, int(day), hours, minutes, seconds)))


class _CheckedObject(ssl.SSLObject):
    """Runs the context's own check as the last part of the handshake."""

    def do_handshake(self) -> None:
        super().do_handshake()
        context = self.context
        if isinstance(context, _Context) and context.check is not None:
            try:
                context.check(self)
            except PeerRefused as error:
                raise ssl.SSLCertVerificationError(1, str(error)) from error


class _Context(ssl.SSLContext):
    check: Callable[[ssl.SSLObject], None] | None = None


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where key, certificate chain and trusted CAs lie (PEM)."""

    key: Path
    certificate: Path
    ca: Path

    @classmethod
    def in_folder(cls, folder: Path) -> TlsFiles:
        return cls(folder / "key.pem", folder / "certificate.pem", folder / "ca.pem")


class TlsIdentity:
    """One process's key, certificate and trust, with the contexts made of them (cached; `reload()` on rotation).

    `generation` rises with each reload, so that pools of connections can be replaced.
    """

    def __init__(self, files: TlsFiles, denied: DenyList = frozenset()) -> None:
        self.files = files
        self.denied = denied
        self.generation = 0
        self._server: _Context | None = None
        self._open: _Context | None = None
        self._client: _Context | None = None

    def server_context(self) -> ssl.SSLContext:
        """For a listener: a client without a certificate of our CA is refused in the handshake."""
        if self._server is None:
            self._server = self._make(ssl.PROTOCOL_TLS_SERVER)
            self._server.verify_mode = ssl.CERT_REQUIRED
            # A resumed session would skip the check of dates; kept connections save more handshakes than tickets do.
            self._server.num_tickets = 0
        return self._server

    def open_context(self) -> ssl.SSLContext:
        """For a listener that asks for no certificate: enrolment, the public API."""
        if self._open is None:
            self._open = self._make(ssl.PROTOCOL_TLS_SERVER)
        return self._open

    def client_context(self) -> ssl.SSLContext:
        """For calls; give `server_hostname=server_name(role)` with each connection."""
        if self._client is None:
            self._client = self._make(ssl.PROTOCOL_TLS_CLIENT)
            self._client.check = self._check_server
        return self._client

    def renewal_context(self, spki_sha256: str) -> ssl.SSLContext:
        """For the renewal call alone: accepts one public key, whatever its certificate's dates say."""
        from agent.wire.pins import spki_digest

        def check(tls: ssl.SSLObject) -> None:
            der = tls.getpeercert(binary_form=True)
            if der is None or spki_digest(der) != spki_sha256:
                raise PeerRefused(reason="its key is not the one that was enrolled")

        context = self._make(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.check = check
        return context

    def reload(self) -> None:
        """Use what the files hold now for every connection made from here on; the old stays when they are broken."""
        load_chain(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), self.files)
        self._client = None
        for context in (self._server, self._open):
            if context is not None:
                load_chain(context, self.files)
                context.load_verify_locations(cafile=self.files.ca)
        self.generation += 1

    def deny(self, serials: Iterable[str]) -> None:
        """Refuse these certificates (lower-case hex serials) from now on; pools of connections are made anew."""
        wanted = frozenset(serials)
        if wanted != self.denied:
            self.denied = wanted
            self.generation += 1

    def _make(self, protocol: int) -> _Context:
        context = _bare(protocol)
        load_chain(context, self.files)
        context.load_verify_locations(cafile=self.files.ca)
        return context

    def _check_server(self, tls: ssl.SSLObject) -> None:
        peer = peer_of(tls)
        if server_name(peer.role) != tls.server_hostname:
            raise PeerRefused(reason=f"it is that of {peer.role}")
        peer.check(self.denied)


def trusting_context(ca_pem: str) -> ssl.SSLContext:
    """A client without a certificate of its own that trusts exactly this CA (enrolment)."""
    context = _bare(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca_pem)

    def check(tls: ssl.SSLObject) -> None:
        if server_name(peer_of(tls).role) != tls.server_hostname:
            raise PeerRefused(reason=f"it is that of {peer_of(tls).role}")

    context.check = check
    return context


def load_chain(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Load key and chain; `IdentityMissing` or `IdentityBroken` with the reason."""
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except FileNotFoundError:
        raise IdentityMissing(path=str(files.certificate.parent)) from None
    except (ssl.SSLError, OSError, ValueError) as error:
        raise IdentityBroken(path=str(files.certificate.parent), reason=str(error)) from error


def _no_password() -> str:
    raise ValueError("the key is protected by a passphrase")


def _bare(protocol: int) -> _Context:
    context = _Context(protocol)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.sslobject_class = _CheckedObject
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_COMPRESSION
    return context
