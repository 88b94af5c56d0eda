"""What can go wrong with FCP devices of IBM Z."""

from __future__ import annotations

from agent.base.errors import Invalid, Temporary


class BadLun(Invalid):
    code = "zfcp.bad-lun"
    sentence = "{lun} can not be addressed over FCP: {reason}."
    hint = "Compare the LUN, the port name and the addressing mode with the array."


class NoAdapter(Temporary):
    code = "zfcp.no-adapter"
    status = 409
    retry_after = 10.0
    sentence = "No FCP device of this host is online on its fabric: {reason}."
    hint = "Set one online (chzdev -e zfcp-host DEVICE) and look at its port_state with lszfcp -Ha."
