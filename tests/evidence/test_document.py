"""What a document says of the code that made it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pcm_ros.evidence.document import commit_of


def test_the_commit_speaks_of_the_whole_repository_that_holds_the_code(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        author = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        return subprocess.run(["git", "-C", str(tmp_path), *author, *arguments], check=True, capture_output=True, text=True).stdout.strip()

    module, other = tmp_path / "package" / "module.py", tmp_path / "other.py"
    module.parent.mkdir()
    for file in (module, other):
        file.write_text("1\n")
    git("init")
    with pytest.raises(subprocess.CalledProcessError):
        commit_of(module)
    git("add", ".")
    git("commit", "-m", "first")
    commit = git("rev-parse", "--short=12", "HEAD")
    assert commit_of(module) == commit
    other.write_text("2\n")
    changed = commit_of(module)
    assert changed.startswith(f"{commit}+")
    other.write_text("3\n")
    assert commit_of(module) not in (changed, commit)
    more = commit_of(module)
    (module.parent / "new.py").write_text("VALUE = 1\n")
    new = commit_of(module)
    assert new not in (more, commit)
    (module.parent / "new.py").write_text("VALUE = 2\n")
    assert commit_of(module) not in (new, more)
    installed = tmp_path / "environment" / "module.py"
    installed.parent.mkdir()
    installed.write_text("1\n")
    with pytest.raises(subprocess.CalledProcessError):
        commit_of(installed)
