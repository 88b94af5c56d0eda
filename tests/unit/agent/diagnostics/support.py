"""An agent's folders on disk, with a real journal and a real certificate."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from agent.diagnostics.place import Place
from agent.jobs import desired, records
from agent.jobs.journal import Journal
from agent.wire.jobs import Generation, VolumeCreate, request_for

VOLUME = "11111111-2222-4333-8444-555555555555"
ATTACHMENT = "99999999-2222-4333-8444-555555555555"


def made(tmp_path: Path) -> Place:
    """A place whose folders are as an agent makes them."""
    place = Place(
        host="host-t",
        state_dir=tmp_path / "state",
        spool_dir=tmp_path / "state" / "spool",
        user="brickyard",
        limits_file=tmp_path / "limits.toml",
        backends={"files": tmp_path / "volumes"},
        images_dir=tmp_path / "images",
    )
    for folder in (place.identity_dir, place.spool_dir, tmp_path / "images" / "incoming"):
        folder.mkdir(parents=True, mode=0o700)
    for part in ("volumes", "snapshots", "partial"):
        (tmp_path / "volumes" / part).mkdir(parents=True, mode=0o700)
    return place


def in_journal(place: Place, *fns: Callable[[Any], Any]) -> None:
    async def write() -> None:
        journal = Journal(place.journal_file)
        await journal.open()
        for fn in fns:
            await journal.write(fn)
        await journal.close()

    asyncio.run(write())


def job(key: str = "op/create/1", *, state: str = "running", updated_at: float = 0.0) -> Callable[[Any], Any]:
    request = request_for(key, 1, VolumeCreate(backend="files", volume_id=VOLUME, size_bytes=1 << 30))
    record = replace(records.fresh(request, 1, "boot"), state=state, updated_at=updated_at)  # type: ignore[arg-type]
    return lambda db: records.accept(db, record)


def attachment(path: Path, device: str = "/dev/loop999", *, wanted: bool = True) -> Callable[[Any], Any]:
    row = desired.Row(
        ATTACHMENT, VOLUME, "files", Generation(incarnation=1, sequence=1), wanted=wanted, device=device,
        raw_device=device, identifiers={"path": str(path)},
    )  # fmt: skip
    return lambda db: desired.put(db, [row])


def certificate(place: Place, begins_days: float, ends_days: float) -> None:
    """A certificate whose validity is so many days from now."""
    now, key = datetime.datetime.now(datetime.UTC), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "host-t")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now + datetime.timedelta(days=begins_days))
        .not_valid_after(now + datetime.timedelta(days=ends_days))
        .sign(key, hashes.SHA256())
    )
    (place.identity_dir / "certificate.pem").write_bytes(made.public_bytes(Encoding.PEM))
