"""Which protocol: all that differs between the APIs of servers; a new one is a new file here and a line in ``APIS``.

``sending`` asks a module for what a request needs (``ChatApi``), ``server`` for what is asked beside the load
(``ServerApi``). The neighbours: ``wire`` carries the bytes and stamps them; ``engine`` decides when a request is sent,
and from where.
"""

from collections.abc import Mapping

APIS: Mapping[str, tuple[str, str]] = {
    "ollama": ("loadgen.api.ollama", "loadgen.api.ollama_server"),
}
"""Name -> the modules that are its ChatApi and its ServerApi (one may be both), imported when they are asked for."""

DEFAULT_API = "ollama"
