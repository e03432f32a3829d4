"""The baseline: the official client in one process, as in a short script, to compare structbench's figures with.

Run as ``python -m benchmarks.baseline URL MODEL SUITE STREAMS REQUESTS TOKENS``; prints its figures as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from itertools import chain
from time import perf_counter

import ollama

from structbench.stats import percentile
from structbench.suites.catalog import load_suite
from structbench.suites.generated import TextShape
from structbench.suites.requests import case_of
from structbench.types import Suite


async def _stream(
    client: ollama.AsyncClient, model: str, suite: Suite, tokens: int, todo: Iterator[int]
) -> list[float]:
    """Send request after request until none is left, and return their TTFTs in seconds."""
    ttfts = []
    for number in todo:
        case, _ = case_of(suite.cases, number)
        messages, options = list(case.messages), {"num_predict": tokens}
        schema = None if case.schema is None else dict(case.schema)
        began = perf_counter()
        stamps = []
        async for _ in await client.chat(model, messages, format=schema, stream=True, options=options):
            stamps.append(perf_counter())
        ttfts.append(stamps[0] - began)
    return ttfts


async def measure(url: str, model: str, suite: str, streams: int, requests: int, tokens: int) -> dict[str, float]:
    """Return TTFT percentiles in seconds and requests/s as such a script sees them."""
    cases = load_suite(suite, text=TextShape(), seed=0)
    todo = iter(range(requests))
    began = perf_counter()
    async with ollama.AsyncClient(url) as client:
        found = await asyncio.gather(*(_stream(client, model, cases, tokens, todo) for _ in range(streams)))
    took = perf_counter() - began
    ttfts = list(chain.from_iterable(found))
    return {
        "ttft_p50_s": percentile(ttfts, 0.5) or 0.0,
        "ttft_p99_s": percentile(ttfts, 0.99) or 0.0,
        "requests_per_s": len(ttfts) / took,
        "tokens": float(requests * tokens),
    }


if __name__ == "__main__":
    _, url, model, suite, *numbers = sys.argv
    print(json.dumps(asyncio.run(measure(url, model, suite, *map(int, numbers)))))
