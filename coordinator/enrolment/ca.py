"""The site's own certificate authority at work: EC P-256, one role per certificate, 30 days each.

`cryptography` is loaded with this module: a service lets `coordinator.enrolment.authority` do it aside.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.wire.pins import key_digest
from agent.wire.tls import URN, server_name
from coordinator.enrolment.authority import CaPair, CaStore, Issued
from coordinator.enrolment.errors import AuthorityBroken, CsrRefused

LIFETIME = datetime.timedelta(days=30)
BACKDATE = datetime.timedelta(minutes=5)
CA_LIFETIME = datetime.timedelta(days=3650)


class Authority:
    """Signs for roles. Methods are quick (well under a millisecond) and keep no state."""

    def __init__(self, pair: CaPair) -> None:
        try:
            key = load_pem_private_key(pair[0], None)
            self._certificate = x509.load_pem_x509_certificate(pair[1])
        except (ValueError, TypeError) as error:
            raise AuthorityBroken(reason=str(error)) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not _belong(key, self._certificate):
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

    def csr_digest(self, csr_pem: str) -> str:
        """sha256 (hex) over the public key of a request, in SubjectPublicKeyInfo form. `CsrRefused`."""
        return key_digest(checked_csr(csr_pem))

    def with_key(self, role: str) -> tuple[str, Issued]:
        """A new private key (PEM) and its certificate."""
        key = new_key()
        return key_pem(key).decode(), self.issue(role, key.public_key())

    def ensure_role(self, folder: Path, role: str, names: Sequence[str] = ()) -> Issued | None:
        """See `Signs`."""
        from coordinator.enrolment.roles import ensure_role

        return ensure_role(folder, self, role, names)

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


def _belong(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> bool:
    return key_digest(key.public_key()) == key_digest(certificate.public_key())


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
