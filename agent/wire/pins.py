"""Digests of public keys; loaded only where certificates are made or renewed."""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def spki_digest(der: bytes) -> str:
    """sha256 (hex) over the public key of a DER certificate, in SubjectPublicKeyInfo form."""
    key = x509.load_der_x509_certificate(der).public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
