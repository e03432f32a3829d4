"""Server APIs: a new one is a module with what ``ChatApi`` and ``ServerApi`` list, and a line in ``APIS``."""

from collections.abc import Mapping

APIS: Mapping[str, tuple[str, str]] = {
    "ollama": ("loadgen.api.ollama", "loadgen.api.ollama_server"),
    "openai": ("loadgen.api.openai", "loadgen.api.openai_server"),
    "responses": ("loadgen.api.responses", "loadgen.api.openai_server"),
    "anthropic": ("loadgen.api.anthropic", "loadgen.api.openai_server"),
}
"""Name -> the modules that are its ChatApi and its ServerApi (one may be both), imported on first use."""

DEFAULT_API = "ollama"
