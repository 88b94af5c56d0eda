"""The agent's own key and certificate: made here, signed by the coordinator, renewed when it calls.

The folder holds `key.pem`, `certificate.pem`, `ca.pem`, `name` and `denied.json`, all 0600. The certificate is
written last, so a folder without one is not enrolled, whatever else lies there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
from pathlib import Path

from agent.base.aside import Aside
from agent.base.errors import Invalid, from_body
from agent.base.files import write_whole
from agent.base.ids import checked_name
from agent.server.access import DeniedSerials
from agent.wire.errors import IdentityBroken, IdentityMissing, Undelivered, WrongCoordinator
from agent.wire.joining import EnrolAnswer, EnrolRequest, HostBundle, JoinToken
from agent.wire.tls import COORDINATOR, TlsFiles, TlsIdentity, host_role, server_name, trusting_context

_TIMEOUT_S = 30.0
_MAX_ANSWER = 64 * 1024
keys = Aside("agent.server.keys")


class Identity:
    """An enrolled agent: `name`, `tls` (contexts for both ports), `denied` (the deny list)."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.denied = DeniedSerials(folder / "denied.json")
        self.tls = TlsIdentity(TlsFiles.in_folder(folder), self.denied)

    @classmethod
    def load(cls, folder: Path) -> Identity:
        """The identity in `folder`; `IdentityMissing` before enrolment, `IdentityBroken` when files do not fit."""
        files = TlsFiles.in_folder(folder)
        if not files.certificate.exists():
            raise IdentityMissing(path=str(folder))
        try:
            identity = cls(folder, checked_name((folder / "name").read_text().strip(), "host"))
        except (OSError, ValueError, Invalid) as error:
            raise IdentityBroken(path=str(folder), reason=str(error)) from error
        identity.tls.server_context()
        return identity

    def csr(self) -> str:
        """A signing request (PEM) for the present key. Blocking."""
        return str(keys.call("request", str(self.tls.files.key), self.name))

    async def install(self, certificate: str, ca: str) -> None:
        """Use a renewed certificate from now on: it must be for our key and name, by one of the CAs that come with it.

        Raises `Invalid` and changes nothing when it does not fit.
        """
        await asyncio.to_thread(self._write, certificate, ca)
        # On the loop, since contexts must not change while a handshake begins.
        self.tls.reload()

    def _write(self, certificate: str, ca: str) -> None:
        keys.call("check", certificate, ca, str(self.tls.files.key), host_role(self.name))
        write_whole(self.tls.files.ca, ca.encode())
        write_whole(self.tls.files.certificate, certificate.encode())


async def join(
    folder: Path,
    token: str,
    name: str,
    *,
    control_port: int,
    data_port: int,
    address: str | None = None,
) -> Identity:
    """Enrol this host. The key is made here and stays; the same token again after a lost answer is fine.

    Raises `TokenInvalid`, `TokenRefused`, `HostEnrolled`, `WrongCoordinator` or `Undelivered`.
    """
    ticket = JoinToken.parse(token)
    checked_name(name, "host")
    csr = await asyncio.to_thread(keys.call, "new_request", str(folder / "key.pem"), name)
    request = EnrolRequest(
        token_id=ticket.id,
        secret=ticket.secret,
        name=name,
        csr=csr,
        address=address,
        control_port=control_port,
        data_port=data_port,
    )
    answer = await _enrol(ticket, request)
    return await asyncio.to_thread(_settle, folder, name, answer.certificate, answer.ca)


def install_bundle(folder: Path, bundle: Path) -> Identity:
    """Enrol from a file that `brickyard host bundle` made."""
    try:
        parts = HostBundle.model_validate_json(bundle.read_bytes())
    except ValueError:
        raise Invalid(reason=f"{bundle} is not a host bundle.") from None
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "certificate.pem").unlink(missing_ok=True)
    write_whole(folder / "key.pem", parts.key.get_secret_value().encode())
    return _settle(folder, parts.name, parts.certificate, parts.ca)


def _settle(folder: Path, name: str, certificate: str, ca: str) -> Identity:
    keys.call("check", certificate, ca, str(folder / "key.pem"), host_role(name))
    name_file = folder / "name"
    if name_file.exists() and name_file.read_text() != name:
        # Killed in between, the folder must not hold one host's name with another's certificate.
        (folder / "certificate.pem").unlink(missing_ok=True)
    write_whole(folder / "ca.pem", ca.encode())
    write_whole(name_file, name.encode())
    write_whole(folder / "certificate.pem", certificate.encode())
    return Identity.load(folder)


async def _enrol(ticket: JoinToken, request: EnrolRequest) -> EnrolAnswer:
    import aiohttp

    host = f"[{ticket.address}]" if ":" in ticket.address else ticket.address
    base = f"https://{host}:{ticket.port}"
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    name = server_name(COORDINATOR)
    where = f"{ticket.address}:{ticket.port}"
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session:
            async with session.get(f"{base}/ca", ssl=blind, server_hostname=name, allow_redirects=False) as reply:
                ca = (await reply.content.read(_MAX_ANSWER)).decode("ascii", "replace")
            if _fingerprint(ca) != ticket.ca_sha256:
                raise WrongCoordinator(address=where)
            trusted = trusting_context(ca)
            async with session.post(
                f"{base}/enrol", json=request.body(), ssl=trusted, server_hostname=name, allow_redirects=False
            ) as reply:
                answer = json.loads(await reply.read())
    except ssl.SSLError as error:
        raise WrongCoordinator(address=where) from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise Undelivered(peer=COORDINATOR, address=where, reason=str(error) or type(error).__name__) from error
    if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
        raise from_body(answer["error"])
    return EnrolAnswer.model_validate(answer)


def _fingerprint(pem: str) -> str:
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    except ValueError:
        return ""
