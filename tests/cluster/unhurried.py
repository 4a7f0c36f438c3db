"""A spanloom that keeps stream time going by itself only after a minute: what it decides, records made due."""

import sys
from functools import partial

import spanloom.app.node as node
from spanloom.actors.context import PartitionSettings
from spanloom.cli.main import main

if __name__ == "__main__":
    vars(node)["PartitionSettings"] = partial(PartitionSettings, tick_after_s=60.0)
    sys.exit(main(sys.argv[1:]))
