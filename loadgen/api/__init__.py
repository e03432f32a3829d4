"""Server APIs: a new one is a module with what ``ChatApi`` and ``ServerApi`` list, and a line in ``APIS``."""

from collections.abc import Mapping

APIS: Mapping[str, tuple[str, str]] = {
    "ollama": ("loadgen.api.ollama", "loadgen.api.ollama_server"),
    "openai": ("loadgen.api.openai", "loadgen.api.v1_server:OPENAI"),
    "responses": ("loadgen.api.responses", "loadgen.api.v1_server:RESPONSES"),
    "anthropic": ("loadgen.api.anthropic", "loadgen.api.v1_server:ANTHROPIC"),
}
"""Name -> its ChatApi, a module, and its ServerApi, a module or ``module:NAME``; imported on first use."""

DEFAULT_API = "ollama"
