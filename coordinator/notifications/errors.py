"""Why an event could not be sent."""

from __future__ import annotations

from agent.base.errors import Permanent, Temporary


class NotSent(Temporary):
    """The receiver did not take it; it is sent again."""

    code = "notifications.not-sent"
    sentence = "{receiver} did not take an event: {reason}."
    hint = "Mend the receiver; the event is sent again by itself."


class MessagingMissing(Permanent):
    code = "notifications.messaging-missing"
    status = 500
    exit_code = 69
    sentence = "[notifications.messaging] needs the package oslo.messaging: {reason}."
    hint = "Install it beside this service: pip install 'brickyard[coordinator,messaging]'."


class BusUnusable(Permanent):
    code = "notifications.bus-unusable"
    status = 500
    exit_code = 78
    sentence = "[notifications.messaging]: the address of the bus can not be used: {reason}."
    hint = "Write it like rabbit://user:password@host:5672/."
