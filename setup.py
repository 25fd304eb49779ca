"""pip's way to build pcm_ros: run the same CMakeLists.txt as colcon, and put what it installs into the wheel."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.resolve()
GENERATED = ("msg", "srv", "action")
LINKED = ("sim", "benchmarks")  # top-level folders that are imported as parts of pcm_ros
NOT_SOURCES = [f"pcm_ros.{name}*" for name in (*LINKED, *GENERATED)]


def ros_prefix() -> Path:
    """The prefix that holds the ROS 2 wheels (pip's build environment, or the virtual environment)."""
    import ament_package

    return Path(ament_package.__file__).resolve().parents[4]


class Build(build_py):
    """build_py, and the interfaces that CMake generates."""

    def run(self) -> None:
        super().run()
        try:
            self._generate()
        except Exception as error:  # setuptools swallows an Exception in an editable install, and would leave the interfaces out
            raise SystemExit(f"the ROS interfaces were not built: {error}; the output above says why (pip shows it with -v)") from error

    def _generate(self) -> None:
        stage = self._cmake()
        site = next(stage.glob("lib/python*/site-packages/pcm_ros"))
        target = ROOT / "pcm_ros" if self.editable_mode else Path(self.build_lib) / "pcm_ros"
        for name in GENERATED:
            shutil.rmtree(target / name, ignore_errors=True)
            shutil.copytree(site / name, target / name, ignore=shutil.ignore_patterns("*.c", "__pycache__"))
        for library in site.glob("*.so"):
            shutil.copy2(library, target)
        if self.editable_mode:  # so that type checkers and import linters see pcm_ros.sim and pcm_ros.benchmarks too
            for name in LINKED:
                link = ROOT / "pcm_ros" / name
                if not link.is_symlink():
                    link.symlink_to(f"../{name}")
        self._add_data_files(stage)

    def _cmake(self) -> Path:
        prefix = ros_prefix()
        build = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"
        shutil.rmtree(build / "install", ignore_errors=True)
        cache = build / "CMakeCache.txt"
        if cache.exists() and str(prefix) not in cache.read_text():
            shutil.rmtree(build)
        libraries = [str(prefix / "lib"), *(str(path) for path in prefix.glob("lib/python*/site-packages/ros_*.libs"))]
        environment = dict(
            os.environ,
            AMENT_PREFIX_PATH=str(prefix),
            CMAKE_PREFIX_PATH=str(prefix),
            LD_LIBRARY_PATH=os.pathsep.join([*libraries, os.environ.get("LD_LIBRARY_PATH", "")]),
        )
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count()))
        configure = ["cmake", "-S", ROOT, "-B", build, f"-DCMAKE_INSTALL_PREFIX={build / 'install'}"]
        configure += [f"-DPython3_EXECUTABLE={sys.executable}", "-DBUILD_TESTING=OFF"]
        subprocess.run(configure, env=environment, check=True)
        subprocess.run(["cmake", "--build", build, "--target", "install", "-j", jobs], env=environment, check=True)
        return build / "install"

    def _add_data_files(self, stage: Path) -> None:
        """lib/ (libraries, node executables) and share/ (launch, config, ament index) go below the prefix as they are."""
        for folder in (stage / "lib", stage / "share"):
            for path in sorted(folder.rglob("*")):
                name = path.relative_to(stage)
                if path.is_file() and not name.parts[1].startswith("python"):
                    self.distribution.data_files.append((str(name.parent), [os.path.relpath(path, ROOT)]))


class BinaryDistribution(Distribution):
    def has_data(self) -> bool:  # setuptools asks for it in an editable install, and leaves data files out otherwise
        return True

    def has_ext_modules(self) -> bool:
        return True


setup(
    packages=[
        *find_packages(str(ROOT), include=["pcm_ros", "pcm_ros.*"], exclude=NOT_SOURCES),
        *(f"pcm_ros.{name}" for name in LINKED),
        *(f"pcm_ros.{name}.{part}" for name in LINKED for part in find_packages(str(ROOT / name))),
    ],
    package_dir={"pcm_ros": "pcm_ros", **{f"pcm_ros.{name}": name for name in LINKED}},
    cmdclass={"build_py": Build},
    distclass=BinaryDistribution,
    data_files=[],
)
