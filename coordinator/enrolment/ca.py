"""The site's own certificate authority: EC P-256, one role per certificate, 30 days each.

Keys lie behind `CaStore`; `FileCaStore` keeps them in the state directory. `cryptography` is loaded with this module,
so import it late.
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import ipaddress
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.base.files import write_whole
from agent.wire.tls import URN, server_name
from coordinator.enrolment.errors import AuthorityBroken, CsrRefused

LIFETIME = datetime.timedelta(days=30)
BACKDATE = datetime.timedelta(minutes=5)
CA_LIFETIME = datetime.timedelta(days=3650)
CaPair = tuple[bytes, bytes]


class CaStore(Protocol):
    """Where key and certificate of the CA are kept (PEM)."""

    def load_or_create(self, make: Callable[[], CaPair]) -> CaPair:
        """The (key, certificate) of the site; made once, however many ask at the same time."""


class FileCaStore:
    """`ca/key.pem` and `ca/certificate.pem` below the state directory, mode 0600."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load_or_create(self, make: Callable[[], CaPair]) -> CaPair:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key, certificate = self._folder / "key.pem", self._folder / "certificate.pem"
        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not certificate.exists():
                # The certificate is written last: without it nothing was ever signed by this key.
                pair = make()
                write_whole(key, pair[0])
                write_whole(certificate, pair[1])
            return key.read_bytes(), certificate.read_bytes()
        finally:
            os.close(lock)


@dataclass(frozen=True, slots=True)
class Issued:
    """A signed certificate. `serial` is lower-case hex, times are naive UTC, `chain` is leaf then CA (PEM)."""

    role: str
    serial: str
    chain: str
    spki_sha256: str
    not_before: datetime.datetime
    not_after: datetime.datetime


class Authority:
    """Signs for roles. Methods are quick (well under a millisecond) and keep no state."""

    def __init__(self, pair: CaPair) -> None:
        try:
            key = load_pem_private_key(pair[0], None)
            self._certificate = x509.load_pem_x509_certificate(pair[1])
        except (ValueError, TypeError) as error:
            raise AuthorityBroken(reason=str(error)) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != self._certificate.public_key():
            raise AuthorityBroken(reason="its key and certificate do not belong together")
        self._key = key
        self.ca_pem = pair[1].decode()
        self.fingerprint = hashlib.sha256(self._certificate.public_bytes(Encoding.DER)).hexdigest()

    @classmethod
    def open(cls, store: CaStore) -> Authority:
        """Load the site's CA, making it the first time."""
        return cls(store.load_or_create(new_authority))

    def sign_csr(self, csr_pem: str, role: str, *, now: datetime.datetime | None = None) -> Issued:
        """Sign the key of a request for `role`; its subject and extensions are ignored. `CsrRefused` if it is bad."""
        return self.issue(role, checked_csr(csr_pem), now=now)

    def issue(
        self,
        role: str,
        public_key: ec.EllipticCurvePublicKey,
        *,
        names: Sequence[str] = (),
        now: datetime.datetime | None = None,
        lifetime: datetime.timedelta = LIFETIME,
    ) -> Issued:
        """A certificate for `role`; `names` are further DNS names or IP addresses."""
        start = (now or _utcnow()).replace(microsecond=0) - BACKDATE
        end = start + BACKDATE + lifetime
        serial = x509.random_serial_number()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, role[:64])])
        builder = _builder(public_key, serial, start, end).subject_name(subject)
        builder = builder.issuer_name(self._certificate.subject)
        builder = builder.add_extension(_alternative_names(role, names), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(digital_signature=True), critical=True)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
        )
        leaf = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
        return Issued(role, f"{serial:x}", leaf + self.ca_pem, key_digest(public_key), start, end)


def new_authority() -> CaPair:
    """A fresh CA as (key PEM, certificate PEM)."""
    key = ec.generate_private_key(ec.SECP256R1())
    start = _utcnow().replace(microsecond=0) - BACKDATE
    serial = x509.random_serial_number()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Brickyard site {serial:x}"[:40])])
    builder = _builder(key.public_key(), serial, start, start + CA_LIFETIME).subject_name(name).issuer_name(name)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    return key_pem(key), certificate.public_bytes(Encoding.PEM)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def key_digest(public_key: ec.EllipticCurvePublicKey) -> str:
    """sha256 (hex) over SubjectPublicKeyInfo: what a host is pinned by."""
    return hashlib.sha256(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def checked_csr(pem: str) -> ec.EllipticCurvePublicKey:
    """The public key of a signing request whose holder proved to have the private one; P-256 only."""
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key = request.public_key()
        valid = request.is_signature_valid
    except Exception as error:  # noqa: BLE001  (the parser raises many kinds for hostile input)
        raise CsrRefused(reason=f"it can not be read ({type(error).__name__})") from None
    if not valid:
        raise CsrRefused(reason="its signature is wrong")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CsrRefused(reason="its key is not EC P-256")
    return key


def _builder(
    public_key: ec.EllipticCurvePublicKey, serial: int, start: datetime.datetime, end: datetime.datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().public_key(public_key).serial_number(serial)
    builder = builder.not_valid_before(start).not_valid_after(end)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)


def _alternative_names(role: str, names: Sequence[str]) -> x509.SubjectAlternativeName:
    general: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(URN + role),
        x509.DNSName(server_name(role)),
    ]
    for name in names:
        try:
            general.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            general.append(x509.DNSName(name))
    return x509.SubjectAlternativeName(general)


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _utcnow() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
