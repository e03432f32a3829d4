"""Files that a command writes at its end: whether they can be written is said at its beginning."""

from __future__ import annotations

import os
from pathlib import Path

from structbench.errors import BadInput, RunFailed


def check_output(path: Path, option: str) -> None:
    """BadInput when the file cannot be written; nothing is made or changed."""
    if path.is_dir():
        raise BadInput(f"{option} {path} is a folder: give a file in it")
    if not path.parent.is_dir():
        raise BadInput(f"{option} {path}: the folder {path.parent} does not exist: create it or give another path")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise BadInput(f"{option} {path} cannot be written: change its permissions or give another path")


def write_output(path: Path, text: str) -> None:
    """Put the text in the file."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunFailed(f"cannot write {path} ({error.strerror}): give another path") from error
