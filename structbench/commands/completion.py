"""``structbench completion``: print what makes a shell complete structbench's words."""

from dataclasses import dataclass
from typing import Literal

from structbench.options import opt

EXAMPLES = (
    'eval "$(structbench completion bash)"',
    "structbench completion zsh > ~/.zfunc/_structbench",
)


@dataclass(kw_only=True)
class Options:
    """Print the completion of commands and options for bash, zsh or tcsh."""

    shell: Literal["bash", "zsh", "tcsh"] = opt("bash", "shell", args=["shell"])


def run(options: Options) -> int:
    from argparse import ArgumentParser

    import shtab

    from structbench.cli import COMMANDS, parser_of

    whole = ArgumentParser("structbench")
    commands = whole.add_subparsers()
    for name in COMMANDS:
        known = parser_of(name, add_help=False)
        commands.add_parser(name, description=known.description, help=known.description, parents=[known])
    print(shtab.complete(whole, options.shell))
    return 0
