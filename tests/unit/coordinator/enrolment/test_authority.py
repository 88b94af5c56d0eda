"""The CA as a coordinator holds it signs as the CA itself does."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from agent.server.keys import signing_request
from agent.wire.pins import key_digest
from agent.wire.tls import COORDINATOR, TlsFiles, TlsIdentity, host_role
from coordinator.enrolment.authority import FileCaStore, Issued, SiteAuthority
from coordinator.enrolment.ca import Authority, new_authority, new_key
from coordinator.enrolment.errors import AuthorityBroken, CsrRefused
from coordinator.enrolment.own import own_identity


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module")
def authority(folder: Path) -> SiteAuthority:
    return SiteAuthority.open(FileCaStore(folder / "ca"))


def test_it_is_made_once_and_is_the_ca_of_the_folder(folder: Path, authority: SiteAuthority) -> None:
    again, here = SiteAuthority.open(FileCaStore(folder / "ca")), Authority.open(FileCaStore(folder / "ca"))
    assert again.fingerprint == authority.fingerprint == here.fingerprint
    assert again.ca_pem == authority.ca_pem == here.ca_pem


def test_it_signs_requests(authority: SiteAuthority) -> None:
    key = new_key()
    request = signing_request(key, "host-a")
    issued = authority.sign_csr(request, host_role("host-a"))
    leaf, ca = x509.load_pem_x509_certificates(issued.chain.encode())
    leaf.verify_directly_issued_by(ca)
    assert issued.serial == f"{leaf.serial_number:x}"
    assert (issued.not_before, issued.not_after) == (
        leaf.not_valid_before_utc.replace(tzinfo=None), leaf.not_valid_after_utc.replace(tzinfo=None),
    )  # fmt: skip
    assert issued.spki_sha256 == authority.csr_digest(request) == key_digest(key.public_key())
    assert Issued.from_json(issued.to_json()) == issued


def test_it_makes_keys_and_fills_folders(authority: SiteAuthority, tmp_path: Path) -> None:
    key, issued = authority.with_key(host_role("host-b"))
    folder = tmp_path / "b"
    folder.mkdir()
    for name, text in {"key": key, "certificate": issued.chain, "ca": authority.ca_pem}.items():
        Path(getattr(TlsFiles.in_folder(folder), name)).write_text(text)
    assert TlsIdentity(TlsFiles.in_folder(folder)).server_context()
    own = own_identity(tmp_path / "own", authority, names=("localhost",))
    assert own.server_context()
    assert authority.ensure_role(tmp_path / "own", COORDINATOR, ("localhost",)) is None


def test_what_is_bad_is_refused(authority: SiteAuthority, tmp_path: Path) -> None:
    with pytest.raises(CsrRefused):
        authority.sign_csr("garbage", host_role("a"))
    with pytest.raises(CsrRefused):
        authority.csr_digest("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----")
    (tmp_path / "ca").mkdir()
    store = FileCaStore(tmp_path / "ca")
    SiteAuthority.open(store)
    (tmp_path / "ca" / "key.pem").write_bytes(new_authority()[0])
    with pytest.raises(AuthorityBroken, match="do not belong together"):
        SiteAuthority.open(store)
    (tmp_path / "ca" / "certificate.pem").write_bytes(b"\xff garbage")
    with pytest.raises(AuthorityBroken):
        SiteAuthority.open(store)
