"""``structbench calibrate``: how much load this machine measures truthfully."""

from dataclasses import dataclass

from structbench.commands import print_json
from structbench.options import opt

EXAMPLES = ("structbench calibrate",)


@dataclass(kw_only=True)
class Options:
    """Find the highest load that this machine measures truthfully, against the built-in server; takes about 2 minutes.

    The server runs in a process of its own, and its own send stamps judge. What is found is kept in the user's state
    folder, and ``load`` warns when it is asked for more. Quiet the machine first: beside other work nothing is kept.
    """

    json: bool = opt(False, "print JSON")


def run(options: Options) -> int:
    from dataclasses import asdict

    from structbench.calibration.find import find, sentences
    from structbench.calibration.kept import keep
    from structbench.calibration.measuring import QUIET_CORES
    from structbench.errors import StructbenchError
    from structbench.output import complain

    found = find(tell=complain)
    is_quiet = found.others_cores <= QUIET_CORES
    if is_quiet:
        try:
            path = keep(found)
        except OSError as error:
            raise StructbenchError(f"the calibration cannot be kept: {error}: set XDG_STATE_HOME") from None
    if options.json:
        print_json({**asdict(found), "kept": str(path) if is_quiet else None})
    else:
        for sentence in sentences(found):
            print(sentence)
        print(f"kept in {path}" if is_quiet else "not kept: stop what else is running and calibrate again")
    return 0 if is_quiet else 1
