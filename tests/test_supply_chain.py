"""Dependencies: no floor and no locked release is one with a known advisory; the lock is whole and has hashes."""

from __future__ import annotations

import re
import tomllib
from itertools import chain

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.paths import ROOT

CHECKED = "2026-11-27"
"""When the list was last compared with the public advisories."""
FIXED_IN = {
    "anthropic": ("0.87.0", "CVE-2026-34450, CVE-2026-34452, published 2026-03"),
    "certifi": ("2024.7.4", "CVE-2024-39689, published 2024-07"),
    "duckdb": ("1.4.2", "CVE-2024-41672 (files read past enable_external_access), 2024-07; CVE-2025-64429, 2025-11"),
    "filelock": ("3.20.3", "CVE-2025-68146, 2025-12; CVE-2026-22701, published 2026-01"),
    "fonttools": ("4.60.2", "CVE-2025-66034, published 2025-11"),
    "h11": ("0.16.0", "CVE-2025-43859, published 2025-04"),
    "idna": ("3.15", "CVE-2024-3651, 2024-04; CVE-2026-45409, published 2026-05"),
    "jinja2": ("3.1.6", "CVE-2024-56201, CVE-2024-56326, 2024-12; CVE-2025-27516, published 2025-03"),
    "msgpack": ("1.2.3", "GHSA-6v7p-g79w-8964, 2026-06; CVE-2026-114613, published 2026-10"),
    "orjson": ("3.11.6", "CVE-2024-27454, 2024-02; CVE-2025-67221, published 2026-01"),
    "pillow": ("12.3.0", "CVE-2026-25990, 2026-02; CVE-2026-42309, 2026-05; CVE-2026-59199, CVE-2026-59205, 2026-07"),
    "protobuf": ("6.33.5", "CVE-2025-4565, 2025-06; CVE-2026-0994, published 2026-01"),
    "pygments": ("2.20.0", "CVE-2026-4539, published 2026-03"),
    "ray": ("2.54.0", "CVE-2025-62593, 2025-11; CVE-2026-27482, published 2026-02; ports open to all: docs/scale.md"),
    "requests": ("2.33.0", "CVE-2024-47081, 2025-06; CVE-2026-25645, published 2026-03"),
    "setuptools": ("78.1.1", "CVE-2025-47273, published 2025-05"),
    "tqdm": ("4.66.3", "CVE-2024-34062, published 2024-05"),
    "urllib3": ("2.7.0", "CVE-2026-21441, 2026-01; CVE-2026-44431, CVE-2026-44432, published 2026-05"),
}
"""Package -> the first release without the advisories that are known, and which these are."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NEEDED = [
    Requirement(text)
    for text in chain(
        PROJECT["build-system"]["requires"], PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"].values(),
    )
]  # fmt: skip
LOCKED = {
    canonicalize_name(found[1]): (Version(found[2]), found[3].count("--hash=sha256:"))
    for found in re.finditer(
        r"^([\w.-]+)==([^\s;\\]+)(.*?)(?=^\S|\Z)", (ROOT / "constraints.txt").read_text(), re.MULTILINE | re.DOTALL
    )
}


@pytest.mark.parametrize("name", FIXED_IN)
def test_no_floor_and_no_locked_release_has_a_known_advisory(name: str) -> None:
    fixed = Version(FIXED_IN[name][0])
    floors = [each.specifier for each in NEEDED if canonicalize_name(each.name) == name]
    assert floors, f"{name} has no floor"
    for floor in floors:
        assert all(Version(each.version) >= fixed for each in floor if each.operator in (">=", "=="))
    if name != "setuptools":
        assert LOCKED[name][0] >= fixed


def test_every_dependency_is_locked_with_hashes_and_within_its_range() -> None:
    for needed in NEEDED:
        name = canonicalize_name(needed.name)
        if name not in ("structbench", "setuptools"):
            assert needed.specifier.contains(LOCKED[name][0], prereleases=True), name
    assert all(hashes for _, hashes in LOCKED.values())


def test_the_lock_names_no_place() -> None:
    assert not re.search(r"://|--(extra-)?index-url|--find-links", (ROOT / "constraints.txt").read_text())
