"""``python -m grafana``: write the dashboards' JSON and the recording rules from the code that describes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "dashboards"
RULES = Path(__file__).parent / "rules/percentiles.yml"


def dashboards() -> dict[str, Any]:
    """Return file name -> dashboard."""
    from grafana import live_load, models, server, under_load

    return {
        "live-load.json": live_load.build(),
        "models-side-by-side.json": models.build(),
        "under-load.json": under_load.build(),
        "server-and-machine.json": server.build(),
    }


def text_of(board: Any) -> str:
    """Return the JSON as it is checked in."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    return json.dumps(board, cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def main() -> None:
    from grafana.rules import percentiles

    RULES.write_text(percentiles())
    for name, board in dashboards().items():
        (FOLDER / name).write_text(text_of(board))
        print(f"grafana/dashboards/{name}: {sum(panel.type_val != 'row' for panel in board.panels)} panels")


if __name__ == "__main__":
    main()
