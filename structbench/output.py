"""Where a command's result goes: a file, which is there whole or not at all, or standard output.

Invariant: what stands under the name that was asked for is never half of it; a place that cannot be written is
refused before any work.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from structbench.errors import BadInput


@contextmanager
def target_of(path: Path) -> Iterator[Path]:
    """A path to write to; what was written is then at ``path``, or on standard output for ``-``."""
    check_target(path)
    if str(path) == "-":
        with _standard_output() as pipe:
            yield pipe
        return
    is_device = path.exists() and not path.is_file()  # nothing can be moved to its place
    made = path if is_device else path.with_name(f".{path.name}.{os.getpid()}-part")
    try:
        yield made
        if not is_device:
            made.replace(path)
    except OSError as error:
        raise BadInput(f"cannot write {path} ({error.strerror}): give another -o") from error
    finally:
        if not is_device:
            made.unlink(missing_ok=True)


def check_target(path: Path) -> None:
    """BadInput for what certainly cannot be written."""
    if path.is_dir():
        raise BadInput(f"{path} is a folder: give a file, e.g. -o {path / 'results'}")
    if not path.parent.is_dir():
        raise BadInput(f"the folder {path.parent} does not exist: create it or give another -o")
    if not os.access(path.parent, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise BadInput(f"{path} is not writable: change its permissions or give another -o")


@contextmanager
def _standard_output() -> Iterator[Path]:
    """A pipe with a name, for writers that want one; somebody who reads no further (``| head``) is no mistake."""
    reading, writing = os.pipe()
    broken = threading.Event()

    def pump() -> None:
        try:
            with os.fdopen(reading, "rb") as source:
                shutil.copyfileobj(source, sys.stdout.buffer)
                sys.stdout.flush()
        except BrokenPipeError:
            broken.set()
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    thread = threading.Thread(target=pump)
    thread.start()
    try:
        yield Path(f"/dev/fd/{writing}")
    except (BadInput, OSError):
        if not broken.is_set():
            raise
    finally:
        os.close(writing)
        thread.join()
