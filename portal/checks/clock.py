"""The clock: kept by NTP. A wrong one breaks certificates, logins and leases."""

from __future__ import annotations

import ctypes
import os

from portal.checks.check import Check, Finding
from portal.checks.sight import Sight

#: linux/timex.h
STA_UNSYNC, TIME_ERROR = 0x0040, 5
#: Of struct timex; what comes after `status` is not read.
STATUS_OFFSET_BYTES, TIMEX_BYTES = 40, 256


def synchronised() -> bool:
    """Whether the kernel says that something keeps its clock. Raises OSError."""
    room = ctypes.create_string_buffer(TIMEX_BYTES)
    state = ctypes.CDLL(None, use_errno=True).adjtimex(room)
    if state < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    status = ctypes.c_int.from_buffer(room, STATUS_OFFSET_BYTES).value
    return state != TIME_ERROR and not status & STA_UNSYNC


async def look(sight: Sight) -> Finding:
    """In local mode the clock may be the business of a machine around this one."""
    if synchronised():
        return True, "synchronised"
    if sight.appliance:
        return False, "not synchronised"
    return True, "not known to be synchronised (timedatectl set-ntp true)"


CHECK = Check(name="clock", mend="timedatectl set-ntp true", look=look)
