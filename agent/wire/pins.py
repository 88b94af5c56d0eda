"""What is read from certificates; loaded only where they are made, checked or renewed.

Only by what `cryptography` had in its release 38, too: on IBM Z a distribution's own package is all that there is.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

_ONE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def key_digest(key: CertificatePublicKeyTypes) -> str:
    """sha256 (hex) over a public key in SubjectPublicKeyInfo form: what a host is pinned by, equal for equal keys."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def spki_digest(der: bytes) -> str:
    """`key_digest` of the key of a DER certificate."""
    return key_digest(x509.load_der_x509_certificate(der).public_key())


def chain(pem: bytes) -> list[x509.Certificate]:
    """All certificates of a file, at least one, the holder's first. ValueError."""
    found = [x509.load_pem_x509_certificate(one[0]) for one in _ONE.finditer(pem)]
    if not found:
        raise ValueError("there is no certificate in it")
    return found


def validity(certificate: x509.Certificate) -> tuple[datetime.datetime, datetime.datetime]:
    """From when and until when it holds, in UTC."""
    if hasattr(certificate, "not_valid_after_utc"):
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    begins, ends = certificate.not_valid_before, certificate.not_valid_after
    return begins.replace(tzinfo=datetime.UTC), ends.replace(tzinfo=datetime.UTC)


def is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the authority's name and signature stand on the certificate."""
    key, algorithm = authority.public_key(), certificate.signature_hash_algorithm
    if not isinstance(key, ec.EllipticCurvePublicKey) or algorithm is None or certificate.issuer != authority.subject:
        return False
    try:
        key.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(algorithm))
    except InvalidSignature:
        return False
    return True
