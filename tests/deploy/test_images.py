"""The images: what their Dockerfiles copy is there, and is sent to whoever builds them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.support.paths import ROOT

DOCKERFILES = [ROOT / "Dockerfile", ROOT / "deploy" / "Dockerfile"]
"""Each is built with the root as its context."""


def is_left_out(path: str, lines: Sequence[str]) -> bool:
    """Whether these lines of a .dockerignore keep a path from the builder: the last that fits it or a parent counts."""
    left_out, parts = False, path.split("/")
    heads = ["/".join(parts[:many]) for many in range(1, len(parts) + 1)]
    for line in (text.strip() for text in lines):
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!").strip("/")
            names = [pattern, pattern.removeprefix("**/")]
            if any(fnmatch(head, name) for head in heads for name in names):
                left_out = not line.startswith("!")
    return left_out


def copied(dockerfile: Path) -> list[str]:
    """What it copies from its context, rather than from another stage of the build."""
    text = re.sub(r"\\\n", " ", dockerfile.read_text())
    found = []
    for rest in re.findall(r"^\s*(?:COPY|ADD)\s+(.+)$", text, re.MULTILINE | re.IGNORECASE):
        flags = re.match(r"(?:--\S+\s+)*", rest)
        assert flags is not None
        if "--from=" not in flags[0]:
            words = rest[flags.end() :]
            found += (json.loads(words) if words.startswith("[") else shlex.split(words))[:-1]
    return found


@pytest.mark.parametrize(
    ("path", "lines", "left_out"),
    [("a", [], False), ("a", ["*"], True), ("a", ["*", "!a"], False), ("a/b", ["*", "!a"], False),
     ("a/b", ["*", "!a", "a/b"], True), ("a", ["!a", "*"], True), ("a", ["# a", ""], False),
     ("a/c/d", ["**/c"], True), ("a.txt", ["*", "!b.txt"], True), ("a", ["a/"], True)],
)  # fmt: skip
def test_the_last_line_that_fits_a_path_decides(path: str, lines: list[str], left_out: bool) -> None:
    assert is_left_out(path, lines) == left_out


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_copied_exists_and_is_sent_to_the_builder(dockerfile: Path) -> None:
    lines, sources = (ROOT / ".dockerignore").read_text().splitlines(), copied(dockerfile)
    assert "pyproject.toml" in sources
    for source in sources:
        assert (ROOT / source).exists(), f"{source} does not exist"
        assert not is_left_out(source.strip("/"), lines), f".dockerignore keeps {source} from the builder"


def test_every_dockerfile_is_known_here() -> None:
    found = [path for folder in (ROOT, ROOT / "deploy") for path in folder.glob("*Dockerfile*")]
    assert sorted(found) == sorted(DOCKERFILES)
