"""What is done aside for `coordinator.enrolment.authority`: the functions of the CA on plain texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.wire.pins import key_digest
from coordinator.enrolment.ca import Authority, checked_csr, new_authority
from coordinator.enrolment.roles import ensure_role


def _authority(key: str, certificate: str) -> Authority:
    return Authority((key.encode(), certificate.encode()))


def _new_authority() -> list[str]:
    return [part.decode() for part in new_authority()]


def _check(key: str, certificate: str) -> None:
    _authority(key, certificate)


def _sign_csr(key: str, certificate: str, csr: str, role: str) -> dict[str, Any]:
    return _authority(key, certificate).sign_csr(csr, role).to_json()


def _csr_digest(csr: str) -> str:
    return key_digest(checked_csr(csr))


def _with_key(key: str, certificate: str, role: str) -> list[Any]:
    made, issued = _authority(key, certificate).with_key(role)
    return [made, issued.to_json()]


def _ensure_role(key: str, certificate: str, folder: str, role: str, names: list[str]) -> dict[str, Any] | None:
    issued = ensure_role(Path(folder), _authority(key, certificate), role, names)
    return None if issued is None else issued.to_json()


SERVED = {
    "new_authority": _new_authority,
    "check": _check,
    "sign_csr": _sign_csr,
    "csr_digest": _csr_digest,
    "with_key": _with_key,
    "ensure_role": _ensure_role,
}
