"""A report as one HTML file that opens from disk, fetches nothing and runs only its own script.

Invariant: what comes from outside (names, labels, answers) reaches the page escaped by Jinja or as JSON that cannot
end its script element, never as markup; the page's policy allows no other script, style, image or connection.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from structbench import __version__
from structbench.reports.document import Document
from structbench.reports.view import view_of

_PLOT_STYLE = "sha256-jSYQUrW7J0b3jPqhZP9C2Xh1PyJKHKXd4s0fpGGKrww="
"""The hash of the style that Plot writes into each chart."""
_VENDORED = ("d3.min.js", "plot.umd.min.js")


def to_html(document: Document) -> str:
    """Return the whole page."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    css, own = _page_file("page.css"), _page_file("page.js")
    scripts = [*(_page_file(f"vendor/{name}") for name in _VENDORED), own]
    view = view_of(document)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(_page_file("page.html.j2")).render(
        **view,
        version=__version__,
        libraries=_library_versions(),
        policy=policy_of(scripts, css),
        css=Markup(css),
        scripts=[Markup(script) for script in scripts],
        data=Markup(script_json(view["drawn"])),
    )


def policy_of(scripts: Sequence[str], css: str) -> str:
    """Return the Content-Security-Policy: only these scripts and styles, by their hashes."""
    script_hashes = " ".join(f"'{_csp_hash(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {script_hashes}; style-src '{_csp_hash(css)}' '{_PLOT_STYLE}'; "
        "base-uri 'none'; form-action 'none'"
    )


def script_json(value: Mapping[str, Any]) -> str:
    """Return JSON that is safe inside a script element and as JavaScript: no ``<``, ``>``, ``&``, U+2028 or U+2029."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _page_file(name: str) -> str:
    return (files("structbench.reports") / "page" / name).read_text(encoding="utf-8")


def _csp_hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _library_versions() -> dict[str, str]:
    """Return the versions that the vendored files state in their first line."""
    names = {"d3": "vendor/d3.min.js", "plot": "vendor/plot.umd.min.js"}
    return {name: re.findall(r" v([\d.]+) ", _page_file(path)[:200])[0] for name, path in names.items()}
