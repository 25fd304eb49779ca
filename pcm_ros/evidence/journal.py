"""An append-only file of finished records: what a killed bench goes on from."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from pcm_ros.evidence.document import Record, plain


class JournalError(RuntimeError):
    """A journal that must not be used as it is. The message says which line and what to do."""


@dataclass(frozen=True)
class Entry:
    """One finished item: its record, and the session (and the seconds into it) that ran it, with its source tree."""

    record: Record
    session: str
    elapsed: float
    commit: str


def fingerprint(name: str, config: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of SHA-256 over the bench's name and its configuration, keys sorted."""
    return _digest({"name": name, "config": plain(config)})


def _digest(data: object) -> str:
    text = json.dumps(data, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Journal:
    """JSON lines, one per finished record, keyed by the record's id and the fingerprint of name and configuration.

    Each line is flushed to the disk before `append` returns. After a kill the last line may be torn: it is cut off, and its item is run
    again. Any other line that does not fit its checksum stops the bench: results must not be built on it. Entries of other
    configurations are left alone. A lock keeps two runs from sharing a journal; it falls with the process.

    Args:
        path: the file; made if it is not there.
        name, config: of the bench.
        fresh: forget the entries of this name and configuration.

    Raises:
        JournalError: a damaged line, or the journal is in use.
    """

    def __init__(self, path: Path, name: str, config: Mapping[str, Any], fresh: bool = False) -> None:
        self.path, self.key = path, fingerprint(name, config)
        self.torn = False
        self._others: list[bytes] = []
        self._lines: dict[str, bytes] = {}  # id -> the line of its entry
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._opened()
        try:
            self.entries = self._read()
            if fresh and self.entries:
                self._forget()
        except BaseException:
            self._file.close()
            raise

    def _opened(self) -> IO[bytes]:
        """The file of this path, locked. A run that ended in between has deleted or replaced the one that was opened: then once more."""
        while True:
            file = self.path.open("a+b")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                raise JournalError(f"{self.path} is in use by another run; wait for it, or write to another --json file") from None
            try:
                if os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                    return file
            except FileNotFoundError:
                pass
            file.close()

    def _read(self) -> dict[str, Entry]:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self.torn = True
            self._file.truncate(whole)
        entries: dict[str, Entry] = {}
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                data = json.loads(line)
                checksum = data.pop("checksum")
                valid = checksum == _digest(data)
                key, entry = data["key"], Entry(data["record"], data["session"], float(data["elapsed"]), data["commit"])
                identity = entry.record["id"]
            except (ValueError, KeyError, TypeError, AttributeError):
                valid = False
            if not valid:
                remedy = "Delete the line to run its item again, or the file to start anew"
                raise JournalError(f"{self.path}, line {number}: damaged or changed by hand. {remedy}")
            if key != self.key:
                self._others.append(line + b"\n")
            else:
                if identity in entries:
                    raise JournalError(f"{self.path}, line {number}: a second record of '{identity}'. Delete one of the two lines")
                entries[identity] = entry
                self._lines[identity] = line + b"\n"
        return entries

    def append(self, entry: Entry) -> Entry:
        """Keep a record for good; the entry as it will be read back. Raises ValueError if there is one of this id."""
        data = {"key": self.key, "record": plain(entry.record), "session": entry.session, "elapsed": entry.elapsed, "commit": entry.commit}
        identity = data["record"]["id"]
        if identity in self.entries:
            raise ValueError(f"'{identity}' is in the journal already")
        line = json.dumps({**data, "checksum": _digest(data)}, ensure_ascii=False, allow_nan=False) + "\n"
        self._lines[identity] = line.encode()
        self._file.write(self._lines[identity])
        self._file.flush()
        os.fsync(self._file.fileno())
        self.entries[identity] = Entry(json.loads(json.dumps(data["record"])), entry.session, entry.elapsed, entry.commit)
        return self.entries[identity]

    def _forget(self) -> None:
        """Keep the entries of others alone: written beside the file, locked, and put in its place, so that a kill loses none."""
        beside = self.path.with_name(self.path.name + ".new")
        file = beside.open("w+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.writelines(self._others)
            file.flush()
            os.fsync(file.fileno())
            beside.replace(self.path)
        except BaseException:
            file.close()
            beside.unlink(missing_ok=True)
            raise
        self._file.close()
        self._file, self.entries = file, {}

    def remove(self, written: Collection[str]) -> None:
        """Forget the entries of these ids, since they are elsewhere now; delete the file if it holds no others."""
        self._others += [self._lines[identity] for identity in self.entries if identity not in written]
        self._forget()
        if not self._others:
            self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Release the lock."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
