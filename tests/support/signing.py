"""Certificates and signatures as their owners make them."""

from __future__ import annotations

import base64
import datetime
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)
HASHES = {
    "SHA-224": hashes.SHA224(),
    "SHA-256": hashes.SHA256(),
    "SHA-384": hashes.SHA384(),
    "SHA-512": hashes.SHA512(),
}


@dataclass(frozen=True)
class Holder:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def properties(self, data: bytes, certificate_id: str, hash_method: str = "SHA-256") -> dict[str, str]:
        """The four properties of an image with these bytes."""
        kind = HASHES[hash_method]
        if isinstance(self.key, rsa.RSAPrivateKey):
            pss = padding.PSS(mgf=padding.MGF1(kind), salt_length=padding.PSS.MAX_LENGTH)
            value, key_type = self.key.sign(data, pss, kind), "RSA-PSS"
        elif isinstance(self.key, dsa.DSAPrivateKey):
            value, key_type = self.key.sign(data, kind), "DSA"
        else:
            value, key_type = self.key.sign(data, ec.ECDSA(kind)), f"ECC_{self.key.curve.name.upper()}"
        return {
            "img_signature": base64.b64encode(value).decode(),
            "img_signature_hash_method": hash_method,
            "img_signature_key_type": key_type,
            "img_signature_certificate_uuid": certificate_id,
        }


def holder(
    name: str, issuer: Holder | None = None, *, ca: bool = False, days: tuple[int, int] = (-1, 10), key: Any = None,
    path_length: int | None = None,
) -> Holder:  # fmt: skip
    """Signed by `issuer`, else by itself; `days` from now that it holds from and to."""
    key = key if key is not None else ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer is not None else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * DAY)
        .not_valid_after(now + days[1] * DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not ca,
                key_cert_sign=ca,
                crl_sign=ca,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    return Holder(built.sign(issuer.key if issuer is not None else key, hashes.SHA256()), key)
