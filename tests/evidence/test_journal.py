import json
import os
from pathlib import Path

import pytest

from pcm_ros.evidence import Journal, JournalError
from pcm_ros.evidence.journal import Entry


def entry(identity: str, **record: object) -> Entry:
    return Entry({"id": identity, **record}, "session", 1.5, "abc")


def filled(path: Path, count: int = 3) -> None:
    with Journal(path, "bench", {"seed": 1}) as journal:
        for n in range(count):
            journal.append(entry(f"item-{n}", value=n / 3))


def test_what_was_appended_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal"
    filled(path)
    with Journal(path, "bench", {"seed": 1}) as journal:
        assert journal.entries == {f"item-{n}": entry(f"item-{n}", value=n / 3) for n in range(3)}
        assert not journal.torn


@pytest.mark.parametrize("cut", [1, 10, 60, "newline"])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, cut: int | str) -> None:
    path = tmp_path / "journal"
    filled(path)
    content = path.read_bytes()
    last = content.splitlines(keepends=True)[-1]
    path.write_bytes(content[:-1] if cut == "newline" else content[: -len(last) + int(cut)])
    with Journal(path, "bench", {"seed": 1}) as journal:
        assert journal.torn
        assert list(journal.entries) == ["item-0", "item-1"]
        journal.append(entry("item-2"))
    with Journal(path, "bench", {"seed": 1}) as journal:
        assert len(journal.entries) == 3
        assert not journal.torn


@pytest.mark.parametrize(
    "tamper",
    [
        lambda line: line.replace(b"0.333", b"0.999"),
        lambda line: line[:40] + line[41:],
        lambda line: b"{}",
        lambda line: b"[1, 2]",
        lambda line: b"null",
        lambda line: b"\xff\xfe",
        lambda line: b"",
        lambda line: line.replace(b'"id": "item-1"', b'"id": "item-9"'),
    ],
)
def test_a_changed_line_is_refused_by_number(tmp_path: Path, tamper: object) -> None:
    path = tmp_path / "journal"
    filled(path)
    lines = path.read_bytes().splitlines()
    lines[1] = tamper(lines[1])
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(JournalError, match=r"line 2: damaged or changed by hand\. Delete the line"):
        Journal(path, "bench", {"seed": 1})
    assert path.read_bytes() == b"\n".join(lines) + b"\n"


def test_a_line_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    filled(path)
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(JournalError, match="line 4: a second record of 'item-0'"):
        Journal(path, "bench", {"seed": 1})


def test_other_configurations_keep_to_themselves(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    filled(path)
    with Journal(path, "bench", {"seed": 2}) as other:
        assert other.entries == {}
        other.append(entry("item-0", value=9))
    with Journal(path, "other bench", {"seed": 1}) as journal:
        assert journal.entries == {}
    with Journal(path, "bench", {"seed": 1}, fresh=True) as journal:
        assert journal.entries == {}
    with Journal(path, "bench", {"seed": 2}) as other:
        assert other.entries["item-0"].record["value"] == 9
        other.remove(["item-0"])
    assert not path.exists()


def test_the_end_of_a_shorter_run_leaves_the_other_records(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, "bench", {}) as journal:
        for name in "abc":
            journal.append(entry(name))
    with Journal(path, "bench", {}) as journal:
        journal.append(entry("d"))
        journal.remove(["a", "c"])
    with Journal(path, "bench", {}) as journal:
        assert list(journal.entries) == ["b", "d"]
        journal.remove(["b", "d"])
    assert not path.exists()


def test_the_order_of_keys_does_not_matter(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", "bench", {"a": 1, "b": (2, 3)}) as journal:
        journal.append(entry("x"))
    with Journal(tmp_path / "journal", "bench", {"b": [2, 3], "a": 1}) as journal:
        assert list(journal.entries) == ["x"]


def test_a_journal_in_use_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", "bench", {}), pytest.raises(JournalError, match="in use by another run"):
        Journal(tmp_path / "journal", "bench", {})
    Journal(tmp_path / "journal", "bench", {}).close()


def test_the_same_id_is_not_kept_twice(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", "bench", {}) as journal:
        journal.append(entry("x"))
        with pytest.raises(ValueError, match="'x' is in the journal already"):
            journal.append(entry("x"))


def test_lines_are_plain_json(tmp_path: Path) -> None:
    filled(tmp_path / "journal", 1)
    assert json.loads((tmp_path / "journal").read_text())["record"] == {"id": "item-0", "value": 0.0}


def test_a_full_disk_while_forgetting_loses_no_record_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    filled(path)
    with Journal(path, "bench", {"seed": 2}) as other:
        other.append(entry("item-0"))
        before = path.read_bytes()

        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            other.remove(["item-0"])
        monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_journal_that_was_deleted_while_it_was_opened_is_opened_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = tmp_path / "journal", []
    filled(path)

    def ended(self: Path, *arguments: object) -> object:
        file = real(self, *arguments)
        if not opened:
            self.unlink()  # as another run does at its end
        opened.append(self)
        return file

    real = Path.open
    monkeypatch.setattr(Path, "open", ended)
    with Journal(path, "bench", {"seed": 1}) as journal:
        journal.append(entry("item-7"))
    assert len(opened) == 2
    with Journal(path, "bench", {"seed": 1}) as journal:
        assert list(journal.entries) == ["item-7"]


def test_names_that_are_no_utf8_are_kept_as_text(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", "bench", {"data": Path(os.fsdecode(b"\xff.json"))}) as journal:
        kept = journal.append(entry("item-0", error=os.fsdecode(b"no \xff.mp4")))
        assert kept.record["error"] == "no \\udcff.mp4"
