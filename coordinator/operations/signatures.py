"""What has to be proven of an image before a volume is made of it: gathered with the caller's own authority.

The signer's certificate is fetched and judged here; the bytes are judged by the host that writes them. What is wrong
with a signature is no answer to the request: the volume is made, and ends in error with a message that says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from agent.base.errors import BrickyardError, Permanent
from coordinator.images import info
from coordinator.images.certificates import CertificateManager
from coordinator.images.errors import (
    CertificateNotTrusted,
    CertificateUnusable,
    SignatureIncomplete,
    SignatureMissing,
    SignaturesOff,
)
from coordinator.images.info import ImageInfo, Proof
from coordinator.images.settings import ImagesSection
from coordinator.keys.errors import SecretNotFound
from coordinator.keys.store import KeyStore
from coordinator.state.database import Database


@dataclass(frozen=True, slots=True)
class Asker:
    """Who wants to use an image: its project, its own token, and the certificates that it trusts (None: not said)."""

    project_id: str
    token: str | None = None
    trusted: tuple[str, ...] | None = None


class Signatures:
    """Certificates lie in the sealed store (type `certificate`) or at a key manager."""

    def __init__(
        self, db: Database, keys: KeyStore, settings: ImagesSection, manager: CertificateManager | None = None
    ) -> None:
        self._db, self._keys, self._settings, self._manager = db, keys, settings, manager

    async def close(self) -> None:
        if self._manager is not None:
            await self._manager.close()

    async def asked(self, image: ImageInfo, asker: Asker) -> ImageInfo:
        """The image with what is to be proven of it. Raises SignaturesOff, CertificateAway."""
        if not self._settings.verify_signatures:
            if asker.trusted:
                raise SignaturesOff
            return image
        trusted = asker.trusted or None
        given = trusted or ()
        try:
            signature = await self._signature(image, asker)
            if signature is None and trusted is not None:
                raise SignatureMissing(id=image.id)
            validated = signature is not None and (trusted is not None or self._settings.validate_certificates)
            if signature is not None and validated:
                await self._judge(image, signature["certificate"], asker, trusted)
            return replace(image, proof=Proof(signature, trusted=given, validated=validated))
        except Permanent as refused:
            return replace(image, proof=Proof(refused=refused.to_body(), trusted=given))

    async def _signature(self, image: ImageInfo, asker: Asker) -> Mapping[str, str] | None:
        """As the wire has it; None for an image that is not signed."""
        from coordinator.operations.certificates import is_current, pem, read

        found = {name: image.properties.get(name) for name in info.SIGNATURE}
        missing = [name for name, value in found.items() if not value]
        if len(missing) == len(found):
            return None
        if missing:
            raise SignatureIncomplete(id=image.id, missing=", ".join(missing))
        value, hash_method, key_type, certificate_id = (str(each) for each in found.values())
        data = await self._fetched(certificate_id, asker.token or "", {asker.project_id, image.owner})
        certificate = read(data) if data is not None else None
        if certificate is None:
            raise CertificateUnusable(id=certificate_id[:64], image=image.id, reason="there is none that you may read")
        if not is_current(certificate):
            raise CertificateUnusable(id=certificate_id[:64], image=image.id, reason="it is outside of its dates")
        return {"value": value, "hash_method": hash_method, "key_type": key_type, "certificate": pem(certificate)}

    async def _judge(self, image: ImageInfo, certificate: str, asker: Asker, trusted: tuple[str, ...] | None) -> None:
        """By the caller's list, read with its rights; without one by the site's, read with the site's."""
        from coordinator.operations.certificates import read, untrusted

        ids = trusted if trusted is not None else tuple(self._settings.trusted_certificates)
        token, projects = (asker.token or "", {asker.project_id}) if trusted is not None else (None, None)
        known = [read(data) for each in ids if (data := await self._fetched(each, token, projects)) is not None]
        signer = read(certificate.encode())
        assert signer is not None, "it was read before"
        reason = untrusted(signer, [one for one in known if one is not None])
        if reason is not None:
            raise CertificateNotTrusted(image=image.id, reason=reason)

    async def _fetched(self, certificate_id: str, token: str | None, projects: set[str] | None) -> bytes | None:
        """From the sealed store where one of those projects has it, else from the manager; `None`: as this site."""

        def kept(conn: Connection) -> bytes | None:
            try:
                secret = self._keys.get(conn, certificate_id)
            except SecretNotFound:
                return None
            may = projects is None or secret.project_id in projects
            return secret.value if may and secret.type == "certificate" else None

        found = await self._db.read(kept)
        if found is None and self._manager is not None:
            found = await self._manager.certificate(certificate_id, token)
        return found


def refusal(image: Mapping[str, object]) -> BrickyardError | None:
    """Why the image of an operation is not even fetched; None when nothing speaks against it so far."""
    from agent.base.errors import from_body

    proof = image.get("proof")
    refused = proof.get("refused") if isinstance(proof, Mapping) else None
    return from_body(refused) if refused else None


def verdict(image: Mapping[str, object], *, verified: bool) -> dict[str, str]:
    """What the volume remembers of it; nothing where this site does not verify."""
    proof = image.get("proof")
    if not isinstance(proof, Mapping):
        return {}
    found = {info.VERIFIED: str(verified), info.VALIDATED: str(verified and bool(proof.get("validated")))}
    if proof.get("trusted"):
        found[info.TRUSTED] = ",".join(proof["trusted"])
    return found
