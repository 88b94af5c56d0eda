"""By which name a consumer logs in with CHAP: the id of its attachment, in a form that targets take as a name."""

from __future__ import annotations

_NAMED = "id-"


def user_of(attachment_id: str) -> str:
    """The CHAP user of an attachment."""
    # Linux' target (since 6.0) takes what begins with 0b for a number in base 64, and lets nobody in by the rest of it.
    return _NAMED + attachment_id if attachment_id.startswith("0b") else attachment_id


def attachment_of(user: str) -> str:
    """The attachment whose CHAP user that is."""
    return user.removeprefix(_NAMED)
