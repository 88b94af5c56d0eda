"""The coordinator's own certificate: made at the first start, renewed at a third of its life."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agent.base.files import write_whole
from agent.wire.tls import COORDINATOR, DenyList, TlsFiles, TlsIdentity
from coordinator.enrolment.ca import Authority, Issued, key_pem, new_key


def own_identity(
    folder: Path, authority: Authority, denied: DenyList = frozenset(), names: tuple[str, ...] = ()
) -> TlsIdentity:
    """Key and certificate of role `coordinator` in `folder`, made or renewed where needed."""
    ensure_role(folder, authority, COORDINATOR, names)
    return TlsIdentity(TlsFiles.in_folder(folder), denied)


def ensure_role(folder: Path, authority: Authority, role: str, names: tuple[str, ...] = ()) -> Issued | None:
    """Make the folder hold a certificate of `role` with two thirds of its life left; None when it already did.

    A half-written folder (kill in between) is completed: the certificate is what is written last.
    """
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
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    fresh = datetime.datetime.now(datetime.UTC) < start + (end - start) / 3
    return fresh and same_ca and certificate.public_key() == key.public_key()
