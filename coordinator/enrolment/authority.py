"""The site's certificate authority as a coordinator holds it: its key and certificate, and a process that signs.

Signing takes large libraries for a few certificates a month, so it is done aside (`coordinator.enrolment.signing`).
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import os
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agent.base.aside import Aside
from agent.base.files import write_whole
from coordinator.enrolment.errors import AuthorityBroken

CaPair = tuple[bytes, bytes]


class CaStore(Protocol):
    """Where key and certificate of the CA are kept (PEM)."""

    def load_or_create(self, make: Callable[[], CaPair]) -> CaPair:
        """The (key, certificate) of the site; made once, however many ask at the same time."""


class FileCaStore:
    """`ca/key.pem` and `ca/certificate.pem` below the state directory, mode 0600."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load_or_create(self, make: Callable[[], CaPair]) -> CaPair:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key, certificate = self._folder / "key.pem", self._folder / "certificate.pem"
        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not certificate.exists():
                # The certificate is written last: without it nothing was ever signed by this key.
                pair = make()
                write_whole(key, pair[0])
                write_whole(certificate, pair[1])
            return key.read_bytes(), certificate.read_bytes()
        finally:
            os.close(lock)


@dataclass(frozen=True, slots=True)
class Issued:
    """A signed certificate. `serial` is lower-case hex, times are naive UTC, `chain` is leaf then CA (PEM)."""

    role: str
    serial: str
    chain: str
    spki_sha256: str
    not_before: datetime.datetime
    not_after: datetime.datetime

    def to_json(self) -> dict[str, Any]:
        times = {"not_before": self.not_before.isoformat(), "not_after": self.not_after.isoformat()}
        return {
            "role": self.role, "serial": self.serial, "chain": self.chain, "spki_sha256": self.spki_sha256, **times
        }  # fmt: skip

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Issued:
        times = {name: datetime.datetime.fromisoformat(told[name]) for name in ("not_before", "not_after")}
        return cls(**{**told, **times})


class Signs(Protocol):
    """A certificate authority: this process's own (`coordinator.enrolment.ca`), or one aside. All calls block."""

    ca_pem: str
    fingerprint: str

    def sign_csr(self, csr_pem: str, role: str) -> Issued:
        """Sign the key of a request for `role`; its subject and extensions are ignored. `CsrRefused` if it is bad."""

    def csr_digest(self, csr_pem: str) -> str:
        """sha256 (hex) over the public key of a request, in SubjectPublicKeyInfo form. `CsrRefused`."""

    def with_key(self, role: str) -> tuple[str, Issued]:
        """A new private key (PEM) and its certificate."""

    def ensure_role(self, folder: Path, role: str, names: Sequence[str] = ()) -> Issued | None:
        """Make the folder hold a certificate of `role` with two thirds of its life left; None when it already did.

        A half-written folder (kill in between) is completed: the certificate is what is written last.
        """


signing = Aside("coordinator.enrolment.signing")


class SiteAuthority:
    """`Signs` by a process of its own. A call takes a tenth of a second when that must be started."""

    def __init__(self, pair: CaPair) -> None:
        self._pair = [part.decode() for part in pair]
        self.ca_pem = self._pair[1]
        try:
            self.fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.ca_pem)).hexdigest()
        except ValueError as error:
            raise AuthorityBroken(reason=str(error)) from error

    @classmethod
    def open(cls, store: CaStore) -> SiteAuthority:
        """Load the site's CA, making it the first time. `AuthorityBroken`."""
        pair = store.load_or_create(_made)
        signing.call("check", *(part.decode(errors="replace") for part in pair))
        return cls(pair)

    def sign_csr(self, csr_pem: str, role: str) -> Issued:
        return Issued.from_json(signing.call("sign_csr", *self._pair, csr_pem, role))

    def csr_digest(self, csr_pem: str) -> str:
        return str(signing.call("csr_digest", csr_pem))

    def with_key(self, role: str) -> tuple[str, Issued]:
        key, issued = signing.call("with_key", *self._pair, role)
        return str(key), Issued.from_json(issued)

    def ensure_role(self, folder: Path, role: str, names: Sequence[str] = ()) -> Issued | None:
        issued = signing.call("ensure_role", *self._pair, str(folder), role, list(names))
        return None if issued is None else Issued.from_json(issued)


def _made() -> CaPair:
    key, certificate = signing.call("new_authority")
    return key.encode(), certificate.encode()
