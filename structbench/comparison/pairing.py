"""Pairs the cells of A and B: equal configs, except for what is being compared. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from structbench.errors import BadInput
from structbench.formatting import did_you_mean
from structbench.identity import canonical_json, differences
from structbench.results.groups import RunGroup, differing_by_server
from structbench.types import Config

COMPARED = ("model", "model_digest", "server_version", "server_address", "api")
"""Config fields that may always differ: these are what people compare."""
SEVERAL = "more than one cell matches: choose one model, server and API on each side, or name the runs"
_FIELDS = tuple(field.name for field in fields(Config))


@dataclass(frozen=True, slots=True)
class Pair:
    """Two cells; ``blocking`` lists what differs but must not."""

    a: RunGroup
    b: RunGroup
    changed: tuple[str, ...]
    """What differs and is allowed to: ``model: smollm2:135m → qwen2.5-coder:0.5b``."""
    blocking: tuple[str, ...] = ()
    distinction: str = ""
    """What tells it from other pairs of the same models, suite and load: ``num_ctx=2048``."""

    @property
    def name(self) -> str:
        """Return the name of the cell, with both models if they differ."""
        extra = f" ({self.distinction})" if self.distinction else ""
        if self.a.model == self.b.model:
            return f"{self.a.model} {self.a.suite} {self.a.load}{extra}"
        return f"{self.a.model} → {self.b.model} {self.b.suite} {self.b.load}{extra}"


_SIDES: Sequence[Callable[[Pair], RunGroup]] = (lambda pair: pair.a, lambda pair: pair.b)


@dataclass(frozen=True, slots=True)
class Pairing:
    pairs: tuple[Pair, ...]
    only_a: tuple[RunGroup, ...]
    only_b: tuple[RunGroup, ...]


def check_fields(names: Collection[str]) -> None:
    """Raise BadInput for a name that is not a config field."""
    for name in names:
        if name not in _FIELDS:
            raise BadInput(f"--across {name!r}: no such config field: {did_you_mean(name, _FIELDS)}")


def pair(a: Sequence[RunGroup], b: Sequence[RunGroup], across: Collection[str] = ()) -> Pairing:
    """Pair each run group of A with its counterpart in B; ``across`` names more fields that may differ.

    Counterparts are equal in all other fields, of the same server and API where both sides have it, and of the same
    model unless each side has only one. A group with no counterpart, or several, is paired with the most similar group
    of the same suite, as not comparable.
    """
    free = {*COMPARED, *across}
    one_model = all(len({group.model for group in side}) == 1 for side in (a, b))
    found: list[Pair] = []
    rest_a, rest_b = list(a), list(b)
    same_server = {"model", "server_address", "api"}
    for equal in ({*same_server, *across}, same_server, {"model", "api", *across}, {"model", "api"},
                  {"model", *across}, {"model"}, *([set[str]()] if one_model else [])):  # fmt: skip
        for key in dict.fromkeys(_key(group, free - equal) for group in rest_a):
            ours, theirs = ([group for group in rest if _key(group, free - equal) == key] for rest in (rest_a, rest_b))
            if len(ours) == len(theirs) == 1:
                found.append(_pair(ours[0], theirs[0], free))
                rest_a.remove(ours[0])
                rest_b.remove(theirs[0])
    blocked = [
        replace(each, blocking=each.blocking or (SEVERAL,))
        for group in rest_a
        if (near := _nearest(group, rest_b)) is not None
        for each in [_pair(group, near, free)]
    ]
    seen = {id(group) for each in blocked for group in (each.a, each.b)}
    return Pairing(
        tuple(_with_distinct_names(sorted([*found, *blocked], key=lambda each: each.a.id))),
        tuple(group for group in rest_a if id(group) not in seen),
        tuple(group for group in rest_b if id(group) not in seen),
    )


def _with_distinct_names(pairs: Sequence[Pair]) -> Iterator[Pair]:
    """Yield the pairs; those of one name get what differs between them, on the side that it differs on."""
    for each in pairs:
        alike = [other for other in pairs if other.name == each.name]
        told = [differing_by_server(side(each), [side(other) for other in alike]) for side in _SIDES]
        yield replace(each, distinction=", ".join(told[0] or told[1]))


def _key(group: RunGroup, free: Collection[str]) -> str:
    return canonical_json({name: value for name, value in group.config.items() if name not in free})


def _pair(a: RunGroup, b: RunGroup, free: Collection[str]) -> Pair:
    changed = differences(_only(a.config, free), _only(b.config, free))
    fixed = [name for name in {**a.config, **b.config} if name not in free]
    blocking = differences(_only(a.config, fixed), _only(b.config, fixed))
    return Pair(a, b, tuple(changed), tuple(blocking))


def _only(config: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name in names}


def _nearest(group: RunGroup, others: Sequence[RunGroup]) -> RunGroup | None:
    """Return the group of the same suite whose config differs least."""
    alike = (other for other in others if other.suite == group.suite)
    return min(alike, key=lambda other: len(differences(group.config, other.config)), default=None)
