"""One server's catalogue, in SQLite: named shares, whose they are and who may use them, and the audit log."""

from pathlib import Path

from private_keras.server.catalogue.database import Database
from private_keras.server.catalogue.deliveries import Deliveries, Delivery, Output
from private_keras.server.catalogue.log import AuditRow, LogTable, Segment, Sign
from private_keras.server.catalogue.names import COMMITTED, FORGOTTEN, ROW_BYTES, WRITING, WRITTEN, Names, Row

__all__ = ["COMMITTED", "FORGOTTEN", "ROW_BYTES", "WRITING", "WRITTEN", "AuditRow", "Catalogue", "Delivery",
           "Output", "Row", "Segment", "Sign"]  # fmt: skip


class Catalogue(Database):
    """A server's database and what stands in it. Thread safe.

    Args:
        directory: as for `Database`.

    Attributes:
        names: named shares and their policies.
        log: entries of the audit log.
        deliveries: what waits for receivers.
    """

    def __init__(self, directory: Path | None):
        super().__init__(directory)
        self.names = Names(self)
        self.log = LogTable(self)
        self.deliveries = Deliveries(self)
