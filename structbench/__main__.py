"""``python -m structbench``."""

from structbench.cli import entry

if __name__ == "__main__":
    entry()
