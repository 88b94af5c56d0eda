"""Private keys, signing requests and the check of a certificate before it is installed (loads `cryptography`).

An agent has them done aside (`SERVED`, on plain texts).
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from agent.base.errors import Invalid
from agent.base.files import write_whole
from agent.wire import pins
from agent.wire.errors import IdentityBroken, IdentityMissing
from agent.wire.tls import URN


def ensure_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key in `path`, made there (0600) when there is none: a repeated join uses the same one."""
    if path.exists():
        return load_key(path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    write_whole(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        raise IdentityMissing(path=str(path.parent)) from None
    except (ValueError, TypeError) as error:
        raise IdentityBroken(path=str(path.parent), reason=f"the key can not be read: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityBroken(path=str(path.parent), reason="the key is not EC P-256")
    return key


def signing_request(key: ec.EllipticCurvePrivateKey, name: str) -> str:
    """A certificate signing request (PEM) that proves possession of the key."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


def check_certificate(chain: str, ca: str, key: ec.EllipticCurvePrivateKey, role: str) -> None:
    """Raise `Invalid` unless the chain's leaf is for this key and role and signed by one of the CAs."""
    try:
        leaf, *_ = pins.chain(chain.encode())
        authorities = pins.chain(ca.encode())
        digest = pins.key_digest(leaf.public_key())
        uris = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
            x509.UniformResourceIdentifier
        )
    except (ValueError, x509.ExtensionNotFound) as error:
        raise Invalid(reason=f"The certificate can not be read: {error}.") from None
    if digest != pins.key_digest(key.public_key()):
        raise Invalid(reason="The certificate is not for this host's key.")
    if uris != [URN + role]:
        raise Invalid(reason=f"The certificate is for {', '.join(uris) or 'nobody'}, not for {role}.")
    if not any(pins.is_signed_by(leaf, authority) for authority in authorities):
        raise Invalid(reason="The certificate is signed by none of the authorities that came with it.")


def _new_request(path: str, name: str) -> str:
    return signing_request(ensure_key(Path(path)), name)


def _request(path: str, name: str) -> str:
    return signing_request(load_key(Path(path)), name)


def _check(chain: str, ca: str, path: str, role: str) -> None:
    check_certificate(chain, ca, load_key(Path(path)), role)


def _expiry(path: str) -> float:
    leaf, *_ = pins.chain(Path(path).read_bytes())
    return pins.validity(leaf)[1].timestamp()


SERVED = {"new_request": _new_request, "request": _request, "check": _check, "expiry": _expiry}
