"""A folder with the certificate of a role: made, completed, renewed (loads `cryptography`)."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agent.base.files import write_whole
from agent.wire import pins
from agent.wire.tls import TlsFiles
from coordinator.enrolment.authority import Issued
from coordinator.enrolment.ca import Authority, key_pem, new_key


def ensure_role(folder: Path, authority: Authority, role: str, names: Sequence[str] = ()) -> Issued | None:
    """See `coordinator.enrolment.authority.Signs`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = TlsFiles.in_folder(folder)
    key = _load_key(files.key)
    if key is not None and _still_good(files, key, authority):
        return None
    if key is None:
        key = new_key()
        write_whole(files.key, key_pem(key))
    issued = authority.issue(role, key.public_key(), names=names)
    write_whole(files.ca, authority.ca_pem.encode())
    write_whole(files.certificate, issued.chain.encode())
    return issued


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError):
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None


def _still_good(files: TlsFiles, key: ec.EllipticCurvePrivateKey, authority: Authority) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        same_ca = files.ca.read_text() == authority.ca_pem
    except (OSError, ValueError):
        return False
    start, end = pins.validity(certificate)
    fresh = datetime.datetime.now(datetime.UTC) < start + (end - start) / 3
    return fresh and same_ca and pins.key_digest(certificate.public_key()) == pins.key_digest(key.public_key())
