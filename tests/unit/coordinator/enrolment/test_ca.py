"""The certificate authority: what it signs, what it refuses, and that it is made once."""

from __future__ import annotations

import datetime
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.server.keys import signing_request
from agent.wire.pins import key_digest
from agent.wire.tls import COORDINATOR, TlsFiles, host_role, server_name
from coordinator.enrolment.authority import FileCaStore
from coordinator.enrolment.ca import Authority, checked_csr, new_authority, new_key
from coordinator.enrolment.errors import AuthorityBroken, CsrRefused
from coordinator.enrolment.own import ensure_role


def leaf(chain: str) -> x509.Certificate:
    return x509.load_pem_x509_certificates(chain.encode())[0]


def test_a_certificate_says_one_role_and_lasts_thirty_days() -> None:
    authority, key = Authority(new_authority()), new_key()
    issued = authority.issue(host_role("host-a"), key.public_key(), names=("10.0.0.1", "a.example"))
    made = leaf(issued.chain)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:brickyard:host:host-a"]
    assert names.get_values_for_type(x509.DNSName) == [server_name("host:host-a"), "a.example"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]
    assert issued.not_after - issued.not_before == datetime.timedelta(days=30, minutes=5)
    assert made.not_valid_before_utc < datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=4)
    assert f"{made.serial_number:x}" == issued.serial
    assert issued.spki_sha256 == key_digest(key.public_key())
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_request_gives_only_its_key() -> None:
    authority, key = Authority(new_authority()), new_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "coordinator")])
    wanted = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("urn:brickyard:coordinator")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).add_extension(wanted, critical=False)
    pem = request.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    made = leaf(authority.sign_csr(pem, host_role("a")).chain)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:brickyard:host:a"]
    assert made.public_key() == key.public_key()


def test_other_keys_and_forged_requests_are_refused() -> None:
    name = x509.Name([])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    keys = (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1()))
    pems = [builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode() for key in keys]
    der = bytearray(x509.load_pem_x509_csr(signing_request(new_key(), "a").encode()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    import base64

    body = base64.encodebytes(bytes(der)).decode()
    pems.append(f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n")
    for pem in pems:
        with pytest.raises(CsrRefused):
            checked_csr(pem)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=300).map(lambda raw: raw.decode("latin-1")))
def test_garbage_is_refused_as_a_request(text: str) -> None:
    for pem in (text, f"-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n"):
        with pytest.raises(CsrRefused):
            checked_csr(pem)


def test_it_is_made_once_however_many_start(tmp_path: Path) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(Authority.open(FileCaStore(tmp_path / "ca")).fingerprint))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 6
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "ca").iterdir()} == {0o600}
    (tmp_path / "ca" / "key.pem").write_bytes(new_authority()[0])
    with pytest.raises(AuthorityBroken):
        Authority.open(FileCaStore(tmp_path / "ca"))


def test_own_certificate_is_kept_completed_and_renewed(tmp_path: Path) -> None:
    authority = Authority(new_authority())
    files = TlsFiles.in_folder(tmp_path)
    assert ensure_role(tmp_path, authority, COORDINATOR) is not None
    key = files.key.read_bytes()
    assert ensure_role(tmp_path, authority, COORDINATOR) is None
    files.certificate.unlink()
    assert ensure_role(tmp_path, authority, COORDINATOR) is not None
    assert files.key.read_bytes() == key
    old = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) - datetime.timedelta(days=11)
    public = leaf(files.certificate.read_text()).public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    files.certificate.write_text(authority.issue(COORDINATOR, public, now=old).chain)
    assert ensure_role(tmp_path, authority, COORDINATOR) is not None
    assert ensure_role(tmp_path, Authority(new_authority()), COORDINATOR) is not None
    assert ensure_role(tmp_path, authority, COORDINATOR) is not None
