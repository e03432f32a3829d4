"""``structbench suites``: what there is to ask."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class Options:
    """List the suites that ship, and those of public data that can be had here."""


def run(_options: Options) -> int:
    from structbench.public import describe_public
    from structbench.suites import describe_suites

    print(f"{'suite':<10}{'cases':>10}{'requests':>10}  what")
    for name, cases, requests, text in describe_suites():
        print(f"{name:<10}{cases:>10}{requests:>10}  {text}")
    print()
    for name, count, text in describe_public():
        print(f"{name:<28}{'' if count is None else count:>6}  {text}")
    print()
    print("A path to a .jsonl file is a suite too: see docs/suites.md.")
    return 0
