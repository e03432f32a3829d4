"""Requests and time: a load generator for Ollama that knows nothing of suites, scores or databases."""
