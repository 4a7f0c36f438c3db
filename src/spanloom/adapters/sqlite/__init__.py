"""The embedded deployment's adapters: every file of a data folder, in SQLite."""

from spanloom.adapters.sqlite.files import Durability
from spanloom.adapters.sqlite.folder import DataFolder
from spanloom.adapters.sqlite.ledger import SqliteLedger
from spanloom.adapters.sqlite.log import SqliteLog
from spanloom.adapters.sqlite.outlet import SqliteOutlet
from spanloom.adapters.sqlite.store import SqliteStore

__all__ = ["DataFolder", "Durability", "SqliteLedger", "SqliteLog", "SqliteOutlet", "SqliteStore"]
