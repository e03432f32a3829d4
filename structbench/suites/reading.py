"""Reading files of public data: what they are not is said in one line.

Invariant: whatever a file or folder holds, the answer is its content or a BadInput that names the place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from structbench.errors import BadInput
from structbench.strict_json import NotJson, decode_file


def read_bytes(path: Path) -> bytes:
    """The file's content."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}: check the path") from None


def is_there(path: Path) -> bool:
    """Whether there is a file or folder of that name; BadInput where that cannot be known."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {getattr(error, 'strerror', error)}: check the path") from None
    return True


def lines_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, counted from 1."""
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            yield number, line


def object_of(data: bytes, where: str) -> dict[str, Any]:
    """The JSON object of a line or a file."""
    try:
        value = decode_file(data, "fetch the data anew, or leave this file out")
    except NotJson as error:
        raise BadInput(f"{where}: {error}") from None
    if not isinstance(value, dict):
        raise BadInput(f"{where}: must be a JSON object, not {type(value).__name__}: leave it out")
    return value


def field_of(entry: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    """The entry's field, which must be of that type."""
    if not isinstance(entry.get(name), kind):
        raise BadInput(f"{where}: {name}: must be there, and be of type {kind.__name__}: is this the right file?")
    return entry[name]


def fingerprint(*parts: bytes | str) -> str:
    """SHA-256 over the parts, each set apart from the next."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
