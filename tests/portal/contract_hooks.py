"""What `schemathesis` is told of the portal that `test_contract.py` started: which ids exist."""

from __future__ import annotations

import json
import os
import zlib
from typing import Any

import schemathesis

THERE: dict[str, str] = json.loads(os.environ.get("CONTRACT_EXISTING", "{}"))


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> Any:
    """Every other id is one that there is, so that more than refusals are looked at."""
    for name, value in list((path_parameters or {}).items()):
        if name in THERE and zlib.crc32(repr(value).encode()) % 2:
            assert path_parameters is not None
            path_parameters[name] = THERE[name]
    return path_parameters


@schemathesis.hook
def filter_query(context: Any, query: dict[str, Any] | None) -> bool:
    """What an operation has no parameter for is ignored, as on the whole web."""
    known = {one.name for one in context.operation.query}
    return not query or known.issuperset(query)


@schemathesis.serializer("audio/wav", "audio/webm", "audio/ogg", "audio/mp4")
def sound(context: Any, value: Any) -> bytes:
    """A body of bytes, as it is."""
    return value if isinstance(value, bytes) else str(value).encode()
