"""Certificates that images are signed with: read, and judged against those that somebody trusts.

The rules are the ones that other services judge signed images by: every link of the chain, up to a root that signed
itself, is among the trusted ones, may sign certificates, and is within its dates.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from agent.wire.pins import validity

_MOST_LINKS = 20


def read(data: bytes) -> x509.Certificate | None:
    """A certificate from PEM or DER; None for anything else."""
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            return x509.load_pem_x509_certificate(data)
        return x509.load_der_x509_certificate(data)
    except (ValueError, UnsupportedAlgorithm):
        return None


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def is_current(certificate: x509.Certificate) -> bool:
    """Whether it is within its dates."""
    begins, ends = validity(certificate)
    return begins <= datetime.datetime.now(datetime.UTC) <= ends


def untrusted(certificate: x509.Certificate, trusted: Sequence[x509.Certificate]) -> str | None:
    """Why a certificate does not follow from the trusted ones; None when it does."""
    signers = [one for one in trusted if is_current(one) and _may_sign(one)]
    chain = [certificate]
    while len(chain) <= _MOST_LINKS:
        signer = next((one for one in signers if _has_signed(one, chain[-1])), None)
        if signer is None:
            which = "it" if len(chain) == 1 else "the one that issued it"
            return f"no trusted certificate that may sign has issued {which}"
        if signer == chain[-1]:
            return _too_long(chain)
        chain.append(signer)
    return "its chain has no end"


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return constraints.ca and usage.key_cert_sign


def _has_signed(signer: x509.Certificate, certificate: x509.Certificate) -> bool:
    algorithm = certificate.signature_hash_algorithm
    if signer.subject != certificate.issuer or algorithm is None:
        return False
    key, signed, value = signer.public_key(), certificate.tbs_certificate_bytes, certificate.signature
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(value, signed, padding.PKCS1v15(), algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(value, signed, ec.ECDSA(algorithm))
        elif isinstance(key, dsa.DSAPublicKey):
            key.verify(value, signed, algorithm)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _too_long(chain: Sequence[x509.Certificate]) -> str | None:
    """Each signer says how many others may stand between it and the last."""
    for between, signer in enumerate(chain[1:]):
        most = signer.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        if most is not None and between > most:
            return "its chain is longer than one of the issuers allows"
    return None
