"""Names by role, reading the peer, and broken files."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.errors import IdentityBroken, IdentityMissing, PeerRefused
from agent.wire.tls import (
    COORDINATOR,
    Peer,
    TlsFiles,
    TlsIdentity,
    _read_peer,
    host_role,
    peer_of,
    peer_role,
    server_name,
)
from coordinator.enrolment.ca import Authority, new_authority
from coordinator.enrolment.own import ensure_role


@given(st.lists(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", fullmatch=True), unique=True, min_size=2, max_size=9))
def test_server_names_are_dns_names_and_differ(names: list[str]) -> None:
    made = {server_name(host_role(name)) for name in names}
    assert len(made) == len(names)
    assert all(len(label) <= 63 and label.isascii() for name in made for label in name.split("."))


def cert(*uris: str, serial: str = "00AF", not_after: str = "Jan  1 00:00:00 2030 GMT") -> dict[str, object]:
    return {
        "subjectAltName": [("DNS", "x"), *(("URI", uri) for uri in uris)],
        "serialNumber": serial,
        "notAfter": not_after,
    }


@given(st.integers(0, 253402300799))
def test_the_end_of_validity_is_read_as_the_library_writes_it(second: int) -> None:
    when = time.gmtime(second)
    month = "JanFebMarAprMayJunJulAugSepOctNovDec"[3 * when.tm_mon - 3 : 3 * when.tm_mon]
    text = f"{month} {when.tm_mday:2} {when.tm_hour:02}:{when.tm_min:02}:{when.tm_sec:02} {when.tm_year:04} GMT"
    assert _read_peer(cert("urn:brickyard:host:a", not_after=text)).not_after == second
    assert ssl.cert_time_to_seconds(text) == second


def test_the_role_is_the_one_uri() -> None:
    assert _read_peer(cert("urn:brickyard:host:a")) == Peer("host:a", "af", 1893456000.0)
    for wrong in (None, {}, cert(), cert("urn:other:coordinator"), cert("urn:brickyard:a", "urn:brickyard:b")):
        with pytest.raises(PeerRefused):
            _read_peer(wrong)


def test_dates_and_deny_list_are_checked_on_standing_connections() -> None:
    Peer("host:a", "af", time.time() + 5).check(frozenset())
    with pytest.raises(PeerRefused, match="ran out"):
        Peer("host:a", "af", time.time() - 5).check(frozenset())
    with pytest.raises(PeerRefused, match="revoked"):
        Peer("host:a", "af", time.time() + 5).check(frozenset({"af"}))
    with pytest.raises(PeerRefused):
        peer_of(None)


def identity(folder: Path, role: str, authority: Authority) -> TlsIdentity:
    ensure_role(folder, authority, role)
    return TlsIdentity(TlsFiles.in_folder(folder))


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(IdentityMissing, match=str(tmp_path)):
        TlsIdentity(TlsFiles.in_folder(tmp_path)).client_context()
    authority = Authority(new_authority())
    one = identity(tmp_path / "one", COORDINATOR, authority)
    two = identity(tmp_path / "two", host_role("a"), authority)
    one.server_context()
    one.files.key.write_bytes(two.files.key.read_bytes())
    with pytest.raises(IdentityBroken):
        one.reload()
    assert one.generation == 0
    one.files.certificate.write_text("nothing")
    with pytest.raises(IdentityBroken):
        TlsIdentity(one.files).server_context()


async def test_tls_1_2_and_no_certificate_are_refused(tmp_path: Path) -> None:
    authority = Authority(new_authority())
    server = identity(tmp_path / "s", host_role("a"), authority)
    client = identity(tmp_path / "c", COORDINATOR, authority)
    seen: list[str] = []

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(peer_role(writer.transport))
        writer.write(b"hello")
        writer.close()

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=server.server_context())
    port = listener.sockets[0].getsockname()[1]

    async def talk(context: ssl.SSLContext) -> bytes:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=server_name(host_role("a"))
        )
        try:
            return await reader.read(5)
        finally:
            writer.close()

    assert await talk(client.client_context()) == b"hello"
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.load_verify_locations(cadata=authority.ca_pem)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(cadata=authority.ca_pem)
    old.load_cert_chain(client.files.certificate, client.files.key)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    for refused in (bare, old):
        try:
            assert await talk(refused) == b""
        except (ssl.SSLError, ConnectionError):
            continue
    assert seen == [COORDINATOR]
    listener.close()
