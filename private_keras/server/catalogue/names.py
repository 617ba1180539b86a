"""What named shares a server keeps, whose they are, and who may use them.

A row is the truth about a file of shares: `writing` while it is made (its room is taken), `written` when all of it is
on disk, `committed` when it can be loaded, `forgotten` when it is gone and only its policy is left, which rules what
was made of it.
"""

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass

from private_keras.errors import ClusterError, FileError, InputError, SecurityError
from private_keras.server import entries as saved
from private_keras.server import limits
from private_keras.server.catalogue.database import Database
from private_keras.server.entries import SavedTensor
from private_keras.server.policy import Policy
from private_keras.server.terms import Source
from private_keras.server.ties import TIE_BYTES

WRITING, WRITTEN, COMMITTED, FORGOTTEN = "writing", "written", "committed", "forgotten"
ROW_BYTES = 256  # of a row without its texts
TIES_BYTES = 2 * TIE_BYTES  # of a tensor
_COLUMNS = "id, owner, name, number, nonce, state, about, entries, policy, bytes, created, file, uses, ties"


@dataclass(frozen=True)
class Row:
    """One generation of named shares.

    Attributes:
        entries_text, policy_text: as JSON; `entries`, none of a forgotten one, and `policy` are what they say.
        bytes: on disk, catalogue included.
        created: seconds since 1970.
        file: name of the file with the shares.
        uses: jobs of others that used it.
        ties: of its tensors, as `server.ties` packs them; empty while it is written.
    """

    id: int
    source: Source
    state: str
    about: str
    entries_text: str
    policy_text: str
    bytes: int
    created: float
    file: str
    uses: int
    ties: bytes

    @property
    def policy(self) -> Policy:
        return _policy(self.policy_text)

    @property
    def entries(self) -> tuple[SavedTensor, ...]:
        return saved.from_json(self.entries_text) if self.entries_text else ()


class Names:
    """Thread safe."""

    def __init__(self, database: Database):
        self._database = database

    def begin(
        self, source: Source, about: str, entries: tuple[SavedTensor, ...], policy: Policy, nbytes: int, file: str
    ) -> int:
        """Takes room for a generation that is to be written; returns its row's id.

        Raises:
            InputError: a generation that exists, or existed.
            ClusterError: no room left, for this owner or at all.
        """
        texts = about, saved.to_json(entries), policy.to_json()
        total = nbytes + ROW_BYTES + sum(len(text.encode()) for text in texts) + TIES_BYTES * len(entries)
        now = time.time()
        with self._database.transaction() as database:
            key = _key(source)
            if database.execute(f"SELECT 1 FROM snapshots WHERE {_WHERE}", key).fetchone():
                raise InputError("this generation is saved already; every save needs a fresh one")
            self._check_records(database, source.owner)
            self._check_room(database, source.owner, total)
            columns = _COLUMNS.removeprefix("id, ").removesuffix(", uses, ties")
            row = database.execute(
                f"INSERT INTO snapshots ({columns}, lent) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
                (*key, WRITING, *texts, total, now, file),
            )
            return row.lastrowid

    def _check_records(self, database: sqlite3.Connection, owner: str) -> None:
        """Room for one more row. Rows of what is forgotten and was never lent rule nothing, and the oldest of them go
        first: they only keep a generation from being written twice.
        """
        gone = "state = ? AND file = ''"
        for whose, where, given, most in (
            ("of this owner", "owner = ?", (owner,), limits.OWNER_MAX_RECORDS),
            ("of all", "1", (), limits.MAX_RECORDS),
        ):
            (count,) = database.execute(f"SELECT count(*) FROM snapshots WHERE {where}", given).fetchone()
            if count < most:
                continue
            idle = f"SELECT id FROM snapshots WHERE {where} AND {gone} AND lent = 0 ORDER BY id LIMIT ?"
            dropped = database.execute(
                f"DELETE FROM snapshots WHERE id IN ({idle})", (*given, FORGOTTEN, count - most + 1)
            )
            if count - dropped.rowcount < most:
                continue
            largest = (
                f"SELECT name, count(*) FROM snapshots WHERE owner = ? AND {gone} GROUP BY name "
                "ORDER BY count(*) DESC, name LIMIT 3"
            )
            names = [f"{name} ({n})" for name, n in database.execute(largest, (owner, FORGOTTEN))]
            raise ClusterError(
                f"no room for another name: {count} records {whose} are kept, of at most {most}. Policies of forgotten "
                "shares stay because others may have results of them; yours are most under "
                f"{', '.join(names) or 'no name'}. Give up those of which nobody is to use results any more: "
                "private-keras forget --policies NAME, or pk.forget_policies(NAME)"
            )

    def _check_room(self, database: sqlite3.Connection, owner: str, nbytes: int) -> None:
        query = "SELECT coalesce(sum(bytes), 0), coalesce(sum(state != ?), 0) FROM snapshots"
        for whose, where, given, most, files in (
            ("of this owner", " WHERE owner = ?", (owner,), limits.OWNER_STORAGE_BYTES, limits.OWNER_MAX_SAVED),
            ("of all", "", (), limits.STORAGE_BYTES, limits.MAX_SAVED),
        ):
            used, count = database.execute(query + where, (FORGOTTEN, *given)).fetchone()
            if used + nbytes > most or count >= files:
                raise ClusterError(
                    f"no room for {nbytes} bytes more on disk: {used} of {most} bytes and {count} of {files} files "
                    f"{whose} are taken; forget what is no longer used"
                )

    def finish(self, row: int, ties: bytes) -> None:
        """All of the generation's file is on disk."""
        with self._database.transaction() as database:
            self._advance(row, WRITING, WRITTEN)
            database.execute("UPDATE snapshots SET ties = ? WHERE id = ?", (ties, row))

    def commit(self, source: Source) -> bool:
        """Makes a generation that was written one that can be loaded; whether there is one."""
        if self.find(source) is None:
            return False
        with self._database.transaction() as database:
            found = self._find(database, source)
            if found is not None and found.state == WRITTEN:
                self._advance(found.id, WRITTEN, COMMITTED)
            return found is not None and found.state in (WRITTEN, COMMITTED)

    def _advance(self, row: int, before: str, after: str) -> None:
        with self._database.transaction() as database:
            change = "UPDATE snapshots SET state = ? WHERE id = ? AND state = ?"
            changed = database.execute(change, (after, row, before))
            if changed.rowcount != 1:
                raise ClusterError("what was being saved was removed meanwhile")

    def drop(self, row: int) -> None:
        """Removes a row of which nothing was ever acknowledged."""
        with self._database.transaction() as database:
            database.execute("DELETE FROM snapshots WHERE id = ? AND state = ?", (row, WRITING))

    def forget(self, source: Source) -> str | None:
        """Leaves of a generation what still rules others; the name of its file, None where there is no such one."""
        if self.find(source) is None:
            return None
        with self._database.transaction() as database:
            found = self._find(database, source)
            if found is None or found.state not in (WRITTEN, COMMITTED):
                return None
            database.execute(
                "UPDATE snapshots SET state = ?, about = '', entries = '', ties = x'', bytes = ? WHERE id = ?",
                (FORGOTTEN, ROW_BYTES + len(found.policy_text), found.id),
            )
            return found.file

    def lend(self, source: Source) -> bool:
        """Notes that somebody else gets a generation; whether it can be loaded."""
        with self._database.transaction() as database:
            where = f"{_WHERE} AND state = ?"
            lent = database.execute(f"UPDATE snapshots SET lent = 1 WHERE {where}", (*_key(source), COMMITTED))
            return lent.rowcount > 0

    def forget_policies(self, owner: str, name: str) -> int:
        """Removes what is left of forgotten generations; how many there were.

        Args:
            name: one, or the beginning of several and "*".
        """
        start = name.removesuffix("*")
        where = "name = ?" if start == name else "substr(name, 1, length(?)) = ?"
        with self._database.transaction() as database:
            gone = database.execute(
                f"DELETE FROM snapshots WHERE owner = ? AND state = ? AND file = '' AND {where}",
                (owner, FORGOTTEN, *([name] if start == name else [start, start])),
            )
            return gone.rowcount

    def removed(self, file: str) -> None:
        """The file of a forgotten generation is gone."""
        with self._database.transaction() as database:
            database.execute("UPDATE snapshots SET file = '' WHERE file = ? AND state = ?", (file, FORGOTTEN))

    def find(self, source: Source) -> Row | None:
        """The generation, forgotten or not."""
        with self._database.reading() as database:
            return self._find(database, source)

    def listed(self, owner: str, name: str = "") -> Iterator[Row]:
        """The owner's generations that are written or committed, of one name or of all, oldest first by name."""
        return self._rows("owner = ? AND (? = '' OR name = ?)", (owner, name, name), (WRITTEN, COMMITTED))

    def usable(self, party: str, name: str = "") -> Iterator[Row]:
        """What others own, can be loaded, and whose policy names the party."""
        named = "EXISTS (SELECT 1 FROM json_each(policy, '$.use') WHERE value = ?)"
        return self._rows(f"owner != ? AND (? = '' OR name = ?) AND {named}", (party, name, name, party), (COMMITTED,))

    def unfinished(self) -> Iterator[Row]:
        """Rows with a file that is not to stay as it is: being written, not committed, or forgotten."""
        return self._rows("file != ''", (), (WRITING, WRITTEN, FORGOTTEN))

    def files(self) -> dict[str, str]:
        """By file, the states of all rows that have one."""
        with self._database.reading() as database:
            return dict(database.execute("SELECT file, state FROM snapshots WHERE file != ''"))

    def _rows(self, where: str, given: tuple, states: tuple[str, ...]) -> Iterator[Row]:
        """One after the other: an owner's descriptions of all that it has saved may take more memory than there is."""
        state = f"state IN ({', '.join('?' * len(states))})"
        query = f"SELECT id FROM snapshots WHERE {where} AND {state} ORDER BY owner, name, number, nonce"
        with self._database.reading() as database:
            found = [row for (row,) in database.execute(query, (*given, *states))]
        one = f"SELECT {_COLUMNS} FROM snapshots WHERE id = ? AND {state}"

        def read(row: int) -> tuple | None:
            with self._database.reading() as database:
                return database.execute(one, (row, *states)).fetchone()

        return (_row(still) for still in map(read, found) if still is not None)

    def _find(self, database: sqlite3.Connection, source: Source) -> Row | None:
        found = database.execute(f"SELECT {_COLUMNS} FROM snapshots WHERE {_WHERE}", _key(source)).fetchone()
        return None if found is None else _row(found)

    # --- policies -----------------------------------------------------------------------------------------------------
    def policy(self, source: Source) -> Policy | None:
        """Of a generation, forgotten ones included; None for one that this server does not know."""
        with self._database.reading() as database:
            found = self._judged(database, source)
        return None if found is None else _policy(found[1])

    def set_policy(self, owner: str, name: str, policy: Policy) -> int:
        """Puts a policy on all generations of a name, forgotten ones included; returns how many there are."""
        text = policy.to_json()
        with self._database.transaction() as database:
            changed = database.execute(
                "UPDATE snapshots SET bytes = bytes - length(policy) + ?, policy = ? WHERE owner = ? AND name = ?",
                (len(text), text, owner, name),
            )
            return changed.rowcount

    def count_use(self, source: Source) -> None:
        """Counts one use by somebody else than the owner, on disk when this returns.

        Raises:
            SecurityError: used as often as its policy allows, or unknown.
        """
        with self._database.transaction() as database:
            found = self._judged(database, source)
            if found is None:
                raise SecurityError(f"{source}: this server does not know these shares")
            row, text, uses = found
            most = _policy(text).uses
            if most is not None and uses >= most:
                raise SecurityError(f"{source}: used {uses} times, as often as its owner allows")
            database.execute("UPDATE snapshots SET uses = uses + 1 WHERE id = ?", (row,))

    def _judged(self, database: sqlite3.Connection, source: Source) -> tuple[int, str, int] | None:
        """Id, policy and uses alone: a row may have megabytes of labels, and is looked at for each job."""
        return database.execute(f"SELECT id, policy, uses FROM snapshots WHERE {_WHERE}", _key(source)).fetchone()


def _policy(text: str) -> Policy:
    try:
        return Policy.from_json(text)
    except InputError as error:
        raise FileError(f"the catalogue is damaged ({error})") from None


_WHERE = "owner = ? AND name = ? AND number = ? AND nonce = ?"


def _key(source: Source) -> tuple[str, str, str, str]:
    # SQLite's integers are signed; as text of one length, numbers keep their order.
    return source.owner, source.name, f"{source.number:016x}", source.nonce


def _row(found: tuple) -> Row:
    row, owner, name, number, nonce, state, about, entries, policy, nbytes, created, file, uses, ties = found
    source = Source(owner, name, int(number, 16), nonce)
    return Row(row, source, state, about, entries, policy, nbytes, created, file, uses, ties)
