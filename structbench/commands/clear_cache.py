"""``structbench clear-cache``: make `load --skip-cached` measure complete cells again."""

from dataclasses import dataclass

from structbench.options import RunFilters

EXAMPLES = ("structbench clear-cache",)


@dataclass(kw_only=True)
class Options(RunFilters):
    """Forget that runs are complete or can be continued, so that `load --skip-cached` measures their cells again."""


def run(options: Options) -> int:
    from structbench.formatting import plural
    from structbench.results.selection import filtered_runs
    from structbench.store import Reader
    from structbench.store.upkeep import forget

    with Reader(options.db) as reader:
        chosen = filtered_runs(reader, options)
        forget(reader.database, chosen)
    print(
        f"Forgot {plural(len(chosen), 'run')}: `structbench load --skip-cached` will measure their cells again. "
        "All rows are kept."
    )
    return 0
