"""The one JSON object that a bench writes, and from which everything else is drawn."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pcm_ros.evidence.intervals import Estimate

Record = dict[str, Any]
PACKAGES = ("pcm_ros", "numpy", "torch", "open_clip_torch", "transformers", "diffusers", "pybullet", "ros-rclpy", "scipy")


@dataclass(frozen=True)
class Document:
    """What was run, on what, and what came out.

    Attributes:
        name: of the bench. command: as typed. config: all that determines the records.
        versions: package -> version, "commit" of the source tree. machine: processor, cores, memory, ...
        seconds: wall-clock time of all sessions that contributed records.
        results: name -> estimate.
        records: one per item, in the order of the items, with "id" and "seconds"; "error" if the item raised.
    """

    name: str
    command: str
    config: Mapping[str, Any]
    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    seconds: float
    results: Mapping[str, Estimate]
    records: Sequence[Record] = field(default_factory=tuple)

    def as_json(self) -> dict[str, Any]:
        """A dict of plain JSON types."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return plain({**data, "results": {name: estimate.as_json() for name, estimate in self.results.items()}})

    def save(self, path: Path) -> None:
        """Write the file as a whole or not at all."""
        write_atomically(path, json.dumps(self.as_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Document:
        """Read a file that `save` wrote. Raises ValueError, naming the file, if it is something else."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            results = {name: Estimate.from_json(estimate) for name, estimate in data["results"].items()}
            return cls(**{**{name: data[name] for name in cls.__dataclass_fields__}, "results": results})
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise ValueError(f"{path} is not the JSON of a bench ({what}); make one with `pcm bench NAME --json FILE`") from error

    def outcomes(self, key: str) -> dict[str, bool]:
        """Item -> whether record[key] is true, for `paired`. An item that raised counts as false."""
        return {record["id"]: bool(record.get(key, False)) and "error" not in record for record in self.records}


def content_digest(path: Path) -> str:
    """16 hexadecimal digits of SHA-256 of a file, or of all files in a folder with their names: a path alone does not say what was read.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    for part in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        with part.open("rb") as file:
            digest.update(str(part.relative_to(path)).encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def plain(value: Any) -> Any:
    """Plain JSON types from arrays, numbers, paths, tuples and mappings; NaN and infinities become null. TypeError for anything else."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()  # names of files that are no UTF-8 hold lone surrogates
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return plain(str(value))
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    raise TypeError(f"a record or configuration holds {type(value).__name__}; allowed: None, text, numbers, arrays, paths, lists, mappings")


def write_atomically(path: Path, text: str) -> None:
    """Write beside the file, flush to the disk, then rename: a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def typed_command() -> str:
    """The command line of this process, quoted for a shell, with the program's name only."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def installed_versions() -> dict[str, str]:
    """Versions of what can change a result; "commit" is that of the source tree, with "+" if files of it have changes; "unknown" for code
    that no repository holds."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    try:
        versions["commit"] = commit_of(Path(__file__))
    except (OSError, subprocess.SubprocessError):
        versions["commit"] = "unknown"
    return versions


def commit_of(file: Path) -> str:
    """The commit of the repository that holds a file; if any of its files is changed or new, "+" and a digest of the changes behind it.

    Raises:
        OSError, subprocess.SubprocessError: there is no git, or no repository holds the file (one in whose folder it lies may not).
    """
    root = Path(_git(file.parent, "rev-parse", "--show-toplevel"))
    _git(root, "ls-files", "--error-unmatch", str(file.resolve()))
    changes = _git(root, "diff", "HEAD")
    for name in filter(None, _git(root, "ls-files", "-z", "--others", "--exclude-standard").split("\0")):
        if (new := root / name).is_file():
            changes += f"{name} {content_digest(new)}\n"
    commit = _git(root, "rev-parse", "--short=12", "HEAD")
    return f"{commit}+{hashlib.sha256(changes.encode()).hexdigest()[:6]}" if changes else commit


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def this_machine() -> dict[str, Any]:
    """What the seconds depend on."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), processor)
    except OSError:
        pass  # not Linux: the name above is what there is
    machine: dict[str, Any] = {"system": platform.platform(), "processor": processor, "cores": os.cpu_count()}
    machine["usable_cores"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        machine["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    machine["omp_num_threads"] = os.environ.get("OMP_NUM_THREADS", "not set")
    torch = sys.modules.get("torch")
    if torch is not None:
        machine["torch_threads"] = torch.get_num_threads()
        machine["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return machine
