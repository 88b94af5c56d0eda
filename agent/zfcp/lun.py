"""LUNs as zfcp writes them: 64 bits, the first level in the highest two bytes, in hexadecimal throughout."""

from __future__ import annotations

from typing import Literal

from agent.zfcp.errors import BadLun

Addressing = Literal["SAM", "SAM2", "SAM3-flat"]
_FLAT = 0x4000
_PERIPHERAL_MAX = 0xFF


def fcp_lun(lun: int, addressing: Addressing = "SAM") -> str:
    """`0x000a000000000000` for LUN 10. BadLun when the number does not fit the way of addressing.

    Flat space addressing (codes 01b) marks its LUNs; SAM2 uses it above 255 alone, SAM3-flat for every LUN.
    """
    if not 0 <= lun <= 0xFFFFFFFF:
        raise BadLun(lun=str(lun), reason="it is not a number of at most 32 bits")
    flat = addressing == "SAM3-flat" or (addressing == "SAM2" and lun > _PERIPHERAL_MAX)
    if flat:
        if lun >= _FLAT:
            raise BadLun(lun=str(lun), reason=f"flat addressing ends at {_FLAT - 1}")
        lun |= _FLAT
    return f"0x{lun:04x}000000000000" if lun <= 0xFFFF else f"0x{lun:08x}00000000"


def port_name(wwn: str) -> str:
    """`0x` and sixteen lower-case hexadecimal digits, from the forms that arrays and tools use."""
    plain = wwn.strip().lower().removeprefix("0x").replace(":", "")
    if len(plain) != 16 or any(digit not in "0123456789abcdef" for digit in plain):
        raise BadLun(lun=wwn[:64], reason="it is no world wide port name of 16 hexadecimal digits")
    return f"0x{plain}"
