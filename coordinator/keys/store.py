"""The sealed key store in the state database.

All functions are plain and take the caller's `Connection`, so that a secret is made, cloned or removed in the same
transaction as the volume or image that needs it. Values are never logged and never part of an error.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row

from agent.base.ids import new_id
from coordinator.keys.errors import SecretDamaged, SecretInUse, SecretInvalid, SecretNotFound, WrongKeyEncryptionKey
from coordinator.keys.kek import Kek
from coordinator.state import deposits
from coordinator.state import keys as rows

TYPES = ("passphrase", "symmetric", "opaque", "private", "public", "certificate")
MAX_BYTES = 20_000
GENERATED_BITS = (128, 192, 256, 512)


@dataclass(frozen=True, slots=True)
class Secret:
    """An opened secret. A `passphrase` is used as it is; every other type is hex-encoded where it meets LUKS."""

    id: str
    project_id: str
    type: str
    value: bytes = field(repr=False)
    name: str | None = None
    algorithm: str | None = None
    bit_length: int | None = None


class KeyStore:
    """Seals with `kek`; opens also what one of `former` has sealed. `path` is named in errors only."""

    def __init__(self, kek: Kek, *former: Kek, path: str = "the key file") -> None:
        self._kek = kek
        self._by_id = {each.id: each for each in (*former, kek)}
        self._path = path

    def check(self, conn: Connection) -> None:
        """At start: raise WrongKeyEncryptionKey unless our keys open this database; a new one gets its check value."""
        stored = rows.checks(conn)
        for row in stored:
            kek = self._by_id.get(row.kek_id)
            if kek is None or not hmac.compare_digest(kek.proof(row.nonce), row.sealed):
                raise WrongKeyEncryptionKey(path=self._path, stored=row.kek_id)
        if self._kek.id not in {row.kek_id for row in stored}:
            _add_check(conn, self._kek)

    def create(
        self,
        conn: Connection,
        *,
        project_id: str,
        user_id: str,
        type: str,
        value: bytes,
        name: str | None = None,
        algorithm: str | None = None,
        bit_length: int | None = None,
    ) -> str:
        """Seal `value` as a new secret; returns its id. Raises SecretInvalid."""
        if type not in TYPES:
            raise SecretInvalid(reason=f"its type is none of {', '.join(TYPES)}")
        if not 0 < len(value) <= MAX_BYTES:
            raise SecretInvalid(reason=f"it must have 1 to {MAX_BYTES} bytes")
        key_id = new_id()
        nonce, sealed = self._kek.seal(value, _bound_to(key_id, project_id))
        rows.add(
            conn, id=key_id, project_id=project_id, user_id=user_id, name=name, type=type, algorithm=algorithm,
            bit_length=bit_length, kek_id=self._kek.id, nonce=nonce, sealed=sealed,
        )  # fmt: skip
        return key_id

    def generate(
        self, conn: Connection, *, project_id: str, user_id: str, bits: int = 256, name: str | None = None
    ) -> str:
        """A new random symmetric key of `bits`; returns its id."""
        if bits not in GENERATED_BITS:
            raise SecretInvalid(reason=f"a key has one of {', '.join(map(str, GENERATED_BITS))} bits")
        return self.create(
            conn, project_id=project_id, user_id=user_id, type="symmetric", value=os.urandom(bits // 8), name=name,
            algorithm="aes", bit_length=bits,
        )  # fmt: skip

    def get(self, conn: Connection, key_id: str, *, project_id: str | None = None) -> Secret:
        """Open a secret; with `project_id`, another project's is not found. Raises SecretNotFound, SecretDamaged."""
        row = rows.get(conn, key_id)
        if row is None or (project_id is not None and row.project_id != project_id):
            raise SecretNotFound(id=key_id)
        return Secret(
            id=row.id,
            project_id=row.project_id,
            type=row.type,
            value=self._opened(row),
            name=row.name,
            algorithm=row.algorithm,
            bit_length=row.bit_length,
        )

    def clone(self, conn: Connection, key_id: str, *, project_id: str, user_id: str) -> str:
        """A new secret with the same value and type, owned by `project_id`; returns its id."""
        source = self.get(conn, key_id)
        return self.create(
            conn, project_id=project_id, user_id=user_id, type=source.type, value=source.value, name=source.name,
            algorithm=source.algorithm, bit_length=source.bit_length,
        )  # fmt: skip

    def site_secret(self, conn: Connection) -> bytes:
        """32 random bytes of this site, made at the first call, the same ever after (also when keys are rotated)."""
        key_id, project_id = rows.SITE
        row = rows.get(conn, key_id)
        if row is None:
            nonce, sealed = self._kek.seal(os.urandom(32), _bound_to(key_id, project_id))
            rows.add_once(
                conn, id=key_id, project_id=project_id, user_id="", name="site", type="opaque", kek_id=self._kek.id,
                nonce=nonce, sealed=sealed,
            )  # fmt: skip
            row = rows.get(conn, key_id)
        assert row is not None
        return self._opened(row)

    def delete(self, conn: Connection, key_id: str) -> None:
        """Remove a secret; one that is gone already is fine. Asks nobody whether it is used: see `discard`."""
        rows.remove(conn, key_id)

    def discard(self, conn: Connection, key_id: str, *, project_id: str | None = None) -> None:
        """Remove a secret that nothing uses; raises SecretNotFound, SecretInUse."""
        row = self.show(conn, key_id, project_id=project_id)
        user = rows.used_by(conn, row.id)
        if user is not None:
            raise SecretInUse(id=key_id, noun=user[0], user=user[1])
        rows.remove(conn, row.id)

    def user_of(self, conn: Connection, key_id: str) -> tuple[str, str] | None:
        """(noun, id) of something live that needs the secret; None when nothing does."""
        return rows.used_by(conn, key_id)

    def opened_by(
        self, conn: Connection, key_id: str, *, marker: str | None, limit: int
    ) -> tuple[list[tuple[Row[Any], str]], str | None]:
        """Which of the next `limit` encrypted volumes, in the order of their ids, have a key of the same value, or one
        of which nobody can say it (see `_standing`); and the last one looked at, None at the end. Raises
        SecretNotFound, SecretDamaged."""
        wanted = _passphrase(self.get(conn, key_id))
        looked = rows.users_after(conn, marker, limit)
        found = [(row, standing) for row in looked if (standing := self._standing(conn, row.key_id, wanted))]
        return found, looked[-1].id if len(looked) == limit else None

    def _standing(self, conn: Connection, key_id: str, wanted: bytes) -> str | None:
        """`opens`, `damaged` or `missing`; None for a key of another value."""
        try:
            return "opens" if hmac.compare_digest(_passphrase(self.get(conn, key_id)), wanted) else None
        except SecretDamaged:
            return "damaged"
        except SecretNotFound:
            return "missing"

    def show(self, conn: Connection, key_id: str, *, project_id: str | None = None) -> Row[Any]:
        """What is known of a secret without its value; raises SecretNotFound."""
        row = rows.show(conn, key_id)
        if row is None or (project_id is not None and row.project_id != project_id):
            raise SecretNotFound(id=key_id)
        return row

    def listing(
        self, conn: Connection, project_id: str | None, *, marker: str | None = None, limit: int | None = None
    ) -> list[Row[Any]]:
        """Newest first, without values; `project_id` None lists all."""
        return list(rows.listing(conn, project_id, marker=marker, limit=limit))

    def adopt(self, conn: Connection, volume_id: str, key_id: str, there: deposits.Deposit) -> bool:
        """Let a volume's key have the id that a key manager gave it; False while the volume is worked on, or has
        another key by now, or the key is to lie elsewhere."""
        row = rows.get(conn, key_id)
        if row is None or deposits.awaited(row) != there.name:
            return False
        if not deposits.exchange(conn, volume_id, key_id, there.id):
            return False
        nonce, sealed = self._kek.seal(self._opened(row), _bound_to(there.id, row.project_id))
        facts = deposits.settled(conn, row, there)
        rows.rename(conn, key_id, id=there.id, kek_id=self._kek.id, nonce=nonce, sealed=sealed, **facts)
        return True

    def take_home(self, conn: Connection, key_id: str) -> bool:
        """Let a key lie here alone, once it was opened; whether it was elsewhere. Raises SecretDamaged."""
        row = rows.get(conn, key_id)
        if row is None or not row.external or row.moving_to != deposits.LOCAL:
            return False
        self._opened(row)
        rows.rename(conn, key_id, **deposits.home(conn, row))
        return True

    def rotate(self, conn: Connection, new_kek: Kek) -> int:
        """Seal everything anew under `new_kek` in this one transaction; returns how many secrets.

        Before it, the key file must hold the new key and the old one; after it, the old one can be taken out.
        """
        moved = rows.not_sealed_with(conn, new_kek.id)
        for row in moved:
            nonce, sealed = new_kek.seal(self._opened(row), _bound_to(row.id, row.project_id))
            rows.reseal(conn, row.id, kek_id=new_kek.id, nonce=nonce, sealed=sealed)
        for row in rows.site_not_sealed_with(conn, new_kek.id):
            self._put_of_site(conn, row.name, self._opened_of_site(row), new_kek)
        rows.drop_other_checks(conn, new_kek.id)
        if not rows.checks(conn):
            _add_check(conn, new_kek)
        return len(moved)

    def of_site(self, conn: Connection, name: str) -> bytes | None:
        """What the coordinators of this site share under `name`; None when there is nothing."""
        row = rows.of_site(conn, name)
        return None if row is None else self._opened_of_site(row)

    def put_of_site(self, conn: Connection, name: str, value: bytes) -> None:
        """Share `value` under `name` with the other coordinators of this site."""
        self._put_of_site(conn, name, value, self._kek)

    def drop_of_site(self, conn: Connection, name: str) -> None:
        """Forget what was shared under `name`; nothing there is fine."""
        rows.drop_of_site(conn, name)

    def _put_of_site(self, conn: Connection, name: str, value: bytes, kek: Kek) -> None:
        nonce, sealed = kek.seal(value, _bound_to_site(name))
        rows.put_of_site(conn, name, kek_id=kek.id, nonce=nonce, sealed=sealed)

    def _opened_of_site(self, row: Row[Any]) -> bytes:
        kek = self._by_id.get(row.kek_id)
        if kek is None:
            raise WrongKeyEncryptionKey(path=self._path, stored=row.kek_id)
        value = kek.open(row.nonce, row.sealed, _bound_to_site(row.name))
        if value is None:
            raise SecretDamaged(id=row.name)
        return value

    def _opened(self, row: Row[Any]) -> bytes:
        kek = self._by_id.get(row.kek_id)
        if kek is None:
            raise WrongKeyEncryptionKey(path=self._path, stored=row.kek_id)
        value = kek.open(row.nonce, row.sealed, _bound_to(row.id, row.project_id))
        if value is None:
            raise SecretDamaged(id=row.id)
        return value


def _passphrase(secret: Secret) -> bytes:
    """What opens a LUKS header."""
    return secret.value if secret.type == "passphrase" else secret.value.hex().encode()


def _bound_to(key_id: str, project_id: str) -> bytes:
    return f"brickyard-secret:{key_id}:{project_id}".encode()


def _bound_to_site(name: str) -> bytes:
    return f"brickyard-site:{name}".encode()


def _add_check(conn: Connection, kek: Kek) -> None:
    nonce = os.urandom(12)
    rows.add_check(conn, kek_id=kek.id, nonce=nonce, sealed=kek.proof(nonce))
