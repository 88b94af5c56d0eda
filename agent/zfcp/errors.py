"""What can go wrong with FCP devices of IBM Z."""

from __future__ import annotations

from agent.base.errors import Invalid


class BadLun(Invalid):
    code = "zfcp.bad-lun"
    sentence = "{lun} can not be addressed over FCP: {reason}."
    hint = "Compare the LUN, the port name and the addressing mode with the array."
