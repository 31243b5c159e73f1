"""Lines of JSON that carry a sum of their bytes, so that damage is seen.

A line ends with `"check"`, the CRC-32 of all before it; one without, as other programs
and earlier versions write it, is taken as it is.
"""

import json
import re
import zlib
from typing import Any

_SEAL = re.compile(rb',"check":"([0-9a-f]{8})"}\n?\Z')


def seal(value: dict[str, Any], before: bytes = b"") -> bytes:
    """Write an object, which is not empty, as a line.

    Args:
        before: the line before it, where the order of lines counts.
    """
    body = json.dumps(value, separators=(",", ":")).encode()
    check = zlib.crc32(body, zlib.crc32(before))
    return body[:-1] + b',"check":"%08x"}\n' % check


def unseal(line: bytes, before: bytes = b"") -> dict[str, Any]:
    """Read a line.

    Args:
        before: as of `seal`.

    Raises:
        ValueError: it is not what was written.
    """
    found = _SEAL.search(line)
    body = line if found is None else line[: found.start()] + b"}"
    if found is not None and int(found[1], 16) != zlib.crc32(body, zlib.crc32(before)):
        raise ValueError("its bytes are not those that were written")
    try:
        value = json.loads(body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict) or "check" in value:
        raise ValueError("it is no object, or its sum is none")
    return value
