"""``structbench suites``: what there is to ask."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class Options:
    """List the suites that ship."""


def run(_options: Options) -> int:
    from structbench.suites import describe_suites

    print(f"{'suite':<10}{'cases':>10}{'requests':>10}  what")
    for name, cases, requests, text in describe_suites():
        print(f"{name:<10}{cases:>10}{requests:>10}  {text}")
    print("A path to a .jsonl file is a suite too: see docs/suites.md.")
    return 0
