"""Run ``structbench load`` of the current folder's tree with an engine that makes up records: the main process alone.

With the arguments of ``load``, it prints as its last line the records/s from the first prompt to the end of the
command, and this process's processor time a record. It runs in trees of other commits (``benchmarks.earlier``), so it
names only what they share.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from typing import Any

_CHUNKS = 64
_GAP_NS, _TTFT_NS = 10_000_000, 100_000_000
_SAID = '[{"name": "outside", "unit": "celsius", "value": 21.5}]'


def template(start_ns: int) -> bytes:
    """Return the record of a stream of 64 chunks that was sent then, as a worker sends it."""
    from loadgen.types import RequestRecord

    known = {field.name for field in fields(RequestRecord)}
    first_ns = start_ns + _TTFT_NS
    facts: dict[str, Any] = {
        "index": 0, "worker": 0, "due_ns": start_ns, "sent_ns": start_ns, "sent_off_ns": 0, "chunk_early_ns": (),
        "chunk_ns": tuple(first_ns + i * _GAP_NS for i in range(_CHUNKS)), "first_answer_ns": first_ns,
        "end_ns": first_ns + _CHUNKS * _GAP_NS, "read_lag_max_ns": 200_000, "processor_wait_ns": 0, "clock": "kernel",
        "resent_segments": 0, "out_of_order_segments": 0, "output_text": _SAID, "done_reason": "length",
        "prompt_tokens": 550, "output_tokens": _CHUNKS, "load_ns": 1_000, "prompt_eval_ns": 90_000_000,
        "eval_ns": _CHUNKS * _GAP_NS,
    }  # fmt: skip
    record = RequestRecord(**{name: value for name, value in facts.items() if name in known})
    return pickle.dumps(record, pickle.HIGHEST_PROTOCOL)


class Engine:
    """Stands in for ``generate_load``: takes every request and yields a record of it at once."""

    def __init__(self) -> None:
        self.began_s: float | None = None
        """When the first prompt was asked for."""
        self.used_s = 0.0
        """Processor time of this process until then."""
        self.made = 0

    def __call__(self, requests: Any, *_: Any, **more: Any) -> Iterator[Any]:
        if self.began_s is None:
            self.began_s, self.used_s = time.monotonic(), time.process_time()
        readings = more.get("readings") or more["control"]
        readings.started_ns = start_ns = time.monotonic_ns()
        packed, said = template(start_ns), object.__setattr__
        for request in requests:
            self.made += 1
            record = pickle.loads(packed)
            said(record, "index", request.index)
            yield record


def main() -> int:
    engine, name = Engine(), "structbench.run.segment"
    try:
        segment = import_module(name)
    except ModuleNotFoundError:  # before it was moved
        segment = import_module("structbench.segment")
    segment.generate_load = engine  # type: ignore[attr-defined]
    from structbench.cli import entry

    try:
        entry()
    except SystemExit as end:
        code = int(end.code or 0)
    assert engine.began_s is not None
    took_s, used_s = time.monotonic() - engine.began_s, time.process_time() - engine.used_s
    print(json.dumps({"records_per_s": engine.made / took_s, "cpu_us_per_record": used_s / engine.made * 1e6}))
    return code


if __name__ == "__main__":
    sys.exit(main())
