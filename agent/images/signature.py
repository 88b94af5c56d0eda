"""Signatures over an image's bytes, by the rules that all readers of signed images share.

The certificate has been judged by who names it; here it gives the public key. What is signed is what is stored: the
bytes as they came, before anything is unpacked or converted.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.images.errors import SignatureDiffers, SignatureUnusable

if TYPE_CHECKING:
    from agent.wire.jobs import Signature

HASHES = {f"SHA-{bits}": f"sha{bits}" for bits in (224, 256, 384, 512)}
_CURVES = ("SECT571K1", "SECT409K1", "SECT571R1", "SECT409R1", "SECP521R1", "SECP384R1")
KEY_TYPES = ("RSA-PSS", "DSA", *(f"ECC_{curve}" for curve in _CURVES))


@dataclass(frozen=True, slots=True)
class Verifier:
    """`algorithm` is hashlib's name; `check` takes that digest of the bytes and raises SignatureDiffers."""

    algorithm: str
    check: Callable[[bytes], None]


def verifier(signature: Signature) -> Verifier:
    """What will judge the bytes; raises SignatureUnusable when nothing could ever fit."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

    if signature.hash_method not in HASHES:
        raise SignatureUnusable(rule=f"its hash method is none of {', '.join(HASHES)}")
    if signature.key_type not in KEY_TYPES:
        raise SignatureUnusable(rule=f"its key type is none of {', '.join(KEY_TYPES)}")
    kind = getattr(hashes, signature.hash_method.replace("-", ""))()
    value, fits = _decoded(signature.value), _fitting(signature, kind, Prehashed(kind))

    def check(digest: bytes) -> None:
        from cryptography.exceptions import InvalidSignature

        try:
            fits(value, digest)
        except InvalidSignature:
            raise SignatureDiffers from None

    return Verifier(HASHES[signature.hash_method], check)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SignatureUnusable(rule="it is not base64") from None


def _fitting(signature: Signature, kind: Any, prehashed: Any) -> Callable[[bytes, bytes], None]:
    """The public key's own check of (signature, digest)."""
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa

    key = _public_key(signature.certificate)
    if signature.key_type == "RSA-PSS" and isinstance(key, rsa.RSAPublicKey):
        pss = padding.PSS(mgf=padding.MGF1(kind), salt_length=padding.PSS.MAX_LENGTH)
        return lambda value, digest: key.verify(value, digest, pss, prehashed)
    if signature.key_type == "DSA" and isinstance(key, dsa.DSAPublicKey):
        return lambda value, digest: key.verify(value, digest, prehashed)
    if signature.key_type.startswith("ECC_") and isinstance(key, ec.EllipticCurvePublicKey):
        return lambda value, digest: key.verify(value, digest, ec.ECDSA(prehashed))
    raise SignatureUnusable(rule=f"the certificate's key is not one for {signature.key_type}")


def _public_key(certificate: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.x509 import load_pem_x509_certificate

    try:
        return load_pem_x509_certificate(certificate.encode()).public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise SignatureUnusable(rule="its certificate can not be read") from None
