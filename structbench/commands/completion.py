"""``structbench completion``: print what makes a shell complete structbench's words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from structbench.options import opt

EXAMPLES = (
    'eval "$(structbench completion bash)"',
    "structbench completion zsh > ~/.zfunc/_structbench",
)


@dataclass(kw_only=True)
class Options:
    """Print the completion of commands and options for bash, zsh or tcsh."""

    shell: Literal["bash", "zsh", "tcsh"] = opt("bash", "shell", args=["shell"])


def run(options: Options, parsers: Mapping[str, Any]) -> int:
    """Print the completion of these commands, each with its parser."""
    from argparse import ArgumentParser

    import shtab

    whole = ArgumentParser("structbench")
    commands = whole.add_subparsers()
    for name, known in parsers.items():
        commands.add_parser(name, description=known.description, help=known.description, parents=[known])
    print(shtab.complete(whole, options.shell))
    return 0
