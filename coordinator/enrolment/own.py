"""The coordinator's own certificate: made at the first start, renewed at a third of its life."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent.wire.tls import COORDINATOR, DenyList, TlsFiles, TlsIdentity
from coordinator.enrolment.authority import Issued, Signs


def own_identity(
    folder: Path, authority: Signs, denied: DenyList = frozenset(), names: Sequence[str] = ()
) -> TlsIdentity:
    """Key and certificate of role `coordinator` in `folder`, made or renewed where needed."""
    ensure_role(folder, authority, COORDINATOR, names)
    return TlsIdentity(TlsFiles.in_folder(folder), denied)


def ensure_role(folder: Path, authority: Signs, role: str, names: Sequence[str] = ()) -> Issued | None:
    """See `Signs.ensure_role`."""
    return authority.ensure_role(folder, role, names)
