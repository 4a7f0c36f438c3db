"""A spanloom whose failpoints raise instead of killing: the actor that gets there crashes, the process lives."""

import sys

from spanloom.adapters.failpoints import ArmedFailpoint
from spanloom.cli.main import main


def crash() -> None:
    """As a bug would."""
    raise RuntimeError("the test says so")


if __name__ == "__main__":
    ArmedFailpoint.__init__.__defaults__ = (crash,)
    sys.exit(main(sys.argv[1:]))
