"""From what an array hands out to the bus id of a DASD."""

from __future__ import annotations

import re

from agent.eckd.errors import BadAddress
from agent.host.ccw import BUS_ID

_HEX4 = re.compile(r"[0-9a-f]{1,4}")


def bus_id(number: str) -> str:
    """`0.0.1a2b` for `1a2b`, `0x1A2B` or a whole bus id."""
    plain = number.strip().lower().removeprefix("0x")
    if BUS_ID.fullmatch(plain):
        return plain
    if not _HEX4.fullmatch(plain):
        raise BadAddress(given=number[:64], reason="it is neither a bus id nor a device number of four hex digits")
    return f"0.0.{plain.zfill(4)}"


def of_unit(control_unit: str, unit: str) -> str:
    """A control unit address (`80`: its first device is 8000) and a unit address (`01`) give `0.0.8001`."""
    high, low = (value.strip().lower().removeprefix("0x") for value in (control_unit, unit))
    if not re.fullmatch(r"[0-9a-f]{1,2}", high) or not re.fullmatch(r"[0-9a-f]{1,2}", low):
        raise BadAddress(given=f"{control_unit[:32]}/{unit[:32]}", reason="each address is one or two hex digits")
    return f"0.0.{high.zfill(2)}{low.zfill(2)}"
