"""What can go wrong while hosts are enrolled and certificates signed."""

from __future__ import annotations

from agent.base.errors import Invalid, Permanent


class AuthorityBroken(Permanent):
    code = "enrolment.authority-broken"
    status = 503
    exit_code = 6
    sentence = "The certificate authority in the state directory can not be used: {reason}."
    hint = "Restore the folder 'ca' from a backup of the state directory; a new one would shut every host out."


class CsrRefused(Invalid):
    code = "enrolment.csr-refused"
    sentence = "The certificate request is refused: {reason}."
    hint = "Let the agent make a new one: remove its half-made key and join again."


class RenewalRefused(Permanent):
    """An agent asked for a certificate on another key than it was enrolled with."""

    code = "enrolment.renewal-refused"
    status = 409
    sentence = "The certificate of host {host} is not renewed: its request is for another key than the enrolled one."
    hint = "If the host was set up anew, enrol it again: `brickyard host token --host {host}`."
