"""Reading files of public data: their content, or BadInput that names the place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from structbench.errors import BadInput
from structbench.strict_json import NotJson, decode_file


def read_bytes(path: Path) -> bytes:
    """Read the file; BadInput if it cannot be read, or is a pipe or a device, which may never end."""
    try:
        if path.exists() and not path.is_file():
            raise BadInput(f"{path} is not a regular file: save what it gives in one")
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}: check the path") from None


def exists(path: Path) -> bool:
    """Return whether the file or folder exists; BadInput if that cannot be determined."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {getattr(error, 'strerror', error)}: check the path") from None
    return True


def lines_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank with their numbers, counted from 1."""
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            yield number, line


def object_of(data: bytes, where: str) -> dict[str, Any]:
    """Parse the JSON object in a line or a file."""
    try:
        value = decode_file(data, "download the data again, or leave this file out")
    except NotJson as error:
        raise BadInput(f"{where}: {error}") from None
    if not isinstance(value, dict):
        raise BadInput(f"{where}: must be a JSON object, not {type(value).__name__}: leave it out")
    return value


def field_of(entry: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    """Return the entry's field; BadInput if it is not of that type."""
    if not isinstance(entry.get(name), kind):
        raise BadInput(f"{where}: {name}: missing or not of type {kind.__name__}: is this the right file?")
    return entry[name]


def fingerprint(*parts: bytes | str) -> str:
    """Hash the parts with SHA-256, each preceded by its length."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
