"""`python walled.py FOLDER… -- PROGRAM…`: become the program, to which, and to all that it starts,
everything on this machine but those folders is read-only.

The broker is root, and some of its verbs know paths that no Box says. What tries to write there
is told so by the kernel: Read-only file system.
"""

from __future__ import annotations

import ctypes
import os
import sys

CLONE_NEWNS = 0x2_0000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x4_0000
#: mount_setattr(2), which Python and some C libraries have no name for.
MOUNT_SETATTR, AT_RECURSIVE, RDONLY = 442, 0x8000, 1
libc = ctypes.CDLL(None, use_errno=True)


class Attributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("add", "clear", "propagation", "userns_fd")]


def wall(folders: list[str]) -> None:
    """In a mount namespace of this process's own. Raises OSError."""
    _done(libc.unshare(CLONE_NEWNS))
    _done(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
    for folder in folders:
        _done(libc.mount(folder.encode(), folder.encode(), None, MS_BIND | MS_REC, None))
    _set("/", Attributes(add=RDONLY))
    for folder in folders:
        _set(folder, Attributes(clear=RDONLY))


def _set(path: str, wanted: Attributes) -> None:
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    told = (ctypes.c_char_p(path.encode()), AT_RECURSIVE, ctypes.byref(wanted), size)
    _done(libc.syscall(MOUNT_SETATTR, -1, *told))


def _done(code: int) -> None:
    if code:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    at = sys.argv.index("--")
    wall(sys.argv[1:at])
    os.execv(sys.argv[at + 1], sys.argv[at + 1 :])
