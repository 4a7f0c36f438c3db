"""`python -m tests.killing.deadly ...`: spanloom with a kernel that dies, process and all, of records that say so."""

import os
import signal
import sys
from collections.abc import Sequence

from spanloom.cli.main import main
from spanloom.core import kernel
from spanloom.core.assembly import Harvest
from spanloom.model import Record

MARKER = b"deadly-record"


class MortalAssembler(kernel.Assembler):
    """As a fault in native code would: no exception, no supervisor, the whole process is gone."""

    def feed(self, records: Sequence[Record]) -> Harvest:
        if any(MARKER in record.value for record in records):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().feed(records)


if __name__ == "__main__":
    kernel.Assembler = MortalAssembler  # type: ignore[misc]
    sys.exit(main(sys.argv[1:]))
