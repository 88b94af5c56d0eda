"""The built-in identity service: logins, tokens, and what they may do."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row

from coordinator.identity import passwords
from coordinator.identity.context import Principal
from coordinator.identity.errors import BadCredentials, TokenRefused
from coordinator.identity.keys import SigningKeys
from coordinator.identity.limiter import Limiter
from coordinator.identity.memory import Memory, Together
from coordinator.identity.scope import Named, Resolved, Scope, resolve, resolve_claims, usable
from coordinator.identity.settings import IdentitySettings
from coordinator.identity.tokens import Claims, new_token_id, read, sign
from coordinator.state import identity as state
from coordinator.state.database import Database

Checked = tuple[Claims, Principal]
"""What a token says, and whom it stands for."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A token and what it stands for."""

    token: str = field(repr=False)
    claims: Claims
    resolved: Resolved


class LocalIdentity:
    """Close with `close()`. `clock` gives seconds since 1970."""

    def __init__(
        self, db: Database, keys: SigningKeys, settings: IdentitySettings, clock: Callable[[], float] = time.time
    ) -> None:
        self.db = db
        self.settings = settings
        self._keys = keys
        self._clock = clock
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="bcrypt")
        self._limiter = Limiter(settings.failures_allowed, settings.failures_window, time.monotonic)
        self._proven = Memory[bool](settings.password_cache)
        self._proving = Together[None]()
        self._checked = Memory[Checked](settings.recheck)
        self._checking = Together[Checked]()
        self._forgotten = 0
        self._salt = secrets.token_bytes(32)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def login(self, who: Named, password: str, scope: Scope, address: str | None) -> Issued:
        """A token for a password; raises BadCredentials (401) or TooManyFailures (429)."""
        user = await self.proven(who, password, address)
        return await self._issue(user.id, scope, ("password",), None)

    async def exchange(self, token: str, scope: Scope) -> Issued:
        """A token in another scope for a token; it ends when the given one does."""
        claims, _ = await self.verify(token)
        methods = tuple(dict.fromkeys((*claims.methods, "token")))
        return await self._issue(claims.user_id, scope, methods, claims.expires)

    async def proven(self, who: Named, password: str, address: str | None) -> Row[Any]:
        """The user whose password this is. Same time and same answer for a wrong name as for a wrong password."""
        user = await self.db.read(lambda conn: _user(conn, who))
        stored = user.password_hash if user is not None else None
        name = user.id if user is not None else f"{who.domain_id or who.domain_name or ''}/{who.id or who.name}"
        mark = self._hash(f"{name}\0{stored}\0{password}")
        if self._proven.get(mark) is None:
            await self._proving.ask(mark, lambda: self._prove(name, password, stored, address))
            self._proven.put(mark, True)
        if user is None:
            raise BadCredentials
        return user

    async def _prove(self, name: str, password: str, stored: str | None, address: str | None) -> None:
        self._limiter.attempt(name, address)
        loop, rounds = asyncio.get_running_loop(), self.settings.bcrypt_rounds
        if not await loop.run_in_executor(self._threads, passwords.matches, password, stored, rounds):
            raise BadCredentials
        self._limiter.succeeded(name, address)

    async def verify(self, token: str) -> Checked:
        """What a token stands for; raises TokenRefused. Held against the database every few seconds.

        One in use is looked at again before its time is over: when it is, all calls that are under way would wait.
        """
        mark = self._hash(token)
        known = self._checked.get(mark)
        if known is None or known[0].expires <= self._clock():
            return await self._checking.ask(mark, lambda: self._check(mark, token))
        if self._checked.is_aging(mark):
            self._checking.begin(mark, lambda: self._check(mark, token))
        return known

    async def _check(self, mark: str, token: str) -> Checked:
        forgotten = self._forgotten
        try:
            claims = read(token, self._keys, self._clock())
            resolved = await self.db.glance(lambda conn: resolve_claims(conn, claims))
        except TokenRefused:
            self._checked.drop(mark)
            raise
        if forgotten == self._forgotten:
            self._checked.put(mark, (claims, resolved.principal))
        return claims, resolved.principal

    async def describe(self, token: str) -> Issued:
        """A token with all that its description needs."""
        claims = read(token, self._keys, self._clock())
        return Issued(token, claims, await self.db.read(lambda conn: resolve_claims(conn, claims)))

    async def in_scope(self, user: Row[Any], scope: Scope) -> Principal:
        """A user whose password was proven, in a scope, without a token (HTTP basic)."""
        return (await self.db.read(lambda conn: resolve(conn, user, scope, ""))).principal

    async def revoke(self, token: str) -> None:
        """Refuse a token from now on."""
        claims = read(token, self._keys, self._clock())
        now = self._clock()
        await self.db.write(lambda conn: state.revoke_token(conn, claims.id, claims.expires, now))
        self.forget()

    async def hashed(self, password: str) -> str:
        """The hash to store of a new password."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, passwords.hashed, password, self.settings.bcrypt_rounds)

    def forget(self) -> None:
        """Drop what is remembered of tokens and passwords; called after every change of users, roles, projects."""
        self._forgotten += 1
        self._checked.clear()
        self._checking.clear()
        self._proven.clear()

    def now(self) -> float:
        """Seconds since 1970, of the clock that stamps tokens."""
        return self._clock()

    async def _issue(self, user_id: str, scope: Scope, methods: tuple[str, ...], ends: float | None) -> Issued:
        token_id = new_token_id()

        def resolved(conn: Connection) -> Resolved:
            user = state.by_id(conn, "user", user_id)
            if user is None or not usable(conn, user):
                raise TokenRefused
            return resolve(conn, user, scope, token_id)

        found = await self.db.read(resolved)
        now = self._clock()
        expires = min(now + self.settings.token_lifetime, ends if ends is not None else float("inf"))
        claims = Claims(token_id, user_id, found.kind, found.target_id, now, expires, methods)
        return Issued(sign(claims, self._keys), claims, found)

    def _hash(self, text: str) -> str:
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._salt, digest_size=16).hexdigest()


def _user(conn: Connection, who: Named) -> Row[Any] | None:
    user = who.find(conn, "user")
    return user if user is not None and usable(conn, user) else None
