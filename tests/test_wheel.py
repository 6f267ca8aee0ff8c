"""The wheel, installed into a fresh environment, works from any folder and writes nothing beside itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from theory.support.provenance import version

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = tuple(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"])


@dataclass
class Installed:
    """A folder with the wheel's files, inside another project's repository."""

    packages: Path
    dependencies: Path
    home: Path

    def run(
        self, script: str, *arguments: str, cwd: Path, torch: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """A console script, in an environment with the dependencies and without this checkout."""
        others = self.dependencies if torch else self.dependencies.with_name("without-torch")
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
        env |= {"PYTHONPATH": f"{self.packages}{os.pathsep}{others}", "HOME": str(self.home)}
        env.pop("XDG_CACHE_HOME", None)
        return subprocess.run(
            [sys.executable, "-S", str(self.packages / "bin" / script), *arguments],
            cwd=cwd,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def files(self) -> set[str]:
        """Its files, less what the interpreter and Numba cache in __pycache__."""
        found = (p for p in self.packages.rglob("*") if p.is_file())
        return {str(p.relative_to(self.packages)) for p in found if "__pycache__" not in p.parts}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    top = tmp_path_factory.mktemp("other-project")
    subprocess.run(["git", "init", "-q", str(top)], check=True)
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    commit = ["commit", "-q", "--allow-empty", "-m", "theirs"]
    subprocess.run(["git", "-C", str(top), *who, *commit], check=True)
    # From a copy: building writes into the folder that it builds.
    source = top / "source"
    source.mkdir()
    for name in ("theory", "deep", "figures"):
        shutil.copytree(
            ROOT / name,
            source / name,
            ignore=shutil.ignore_patterns("__pycache__", "out", ".cache"),
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    plain = ["--no-deps", "--no-index"]
    try:
        subprocess.run(
            [*pip, "wheel", *plain, "--no-build-isolation", "-w", str(top), str(source)],
            check=True,
            capture_output=True,
            text=True,
        )
    except subprocess.CalledProcessError as error:
        if "setuptools" in error.stderr and "No module" in error.stderr:
            pytest.skip("setuptools is not installed here")
        raise AssertionError(error.stderr) from None
    shutil.rmtree(source)
    (wheel,) = top.glob("*.whl")
    packages = top / "env"
    subprocess.run([*pip, "install", *plain, "--target", str(packages), str(wheel)], check=True)
    site = Path(sysconfig.get_paths()["purelib"])
    for name, left_out in (("all", ()), ("without-torch", ("torch", "functorch"))):
        (top / name).mkdir()
        for entry in site.iterdir():
            if entry.name.split("-")[0] not in left_out and "local_sgd_rates" not in entry.name:
                (top / name / entry.name).symlink_to(entry)
    return Installed(packages, top / "all", top / "home")


def test_every_command_has_a_script_and_says_its_version_and_help(
    installed: Installed, tmp_path: Path
) -> None:
    for script in SCRIPTS:
        done = installed.run(script, "--version", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, f"local-sgd-rates {version()}\n"), done.stderr
    done = installed.run("lsgd-figures", "-h", cwd=tmp_path)
    assert done.returncode == 0 and "lsgd-figures" in done.stdout and "--version" in done.stdout


def test_the_wheel_holds_results_types_and_campaigns(installed: Installed) -> None:
    files = installed.files()
    for name in (
        "theory/py.typed",
        "deep/py.typed",
        "figures/py.typed",
        "theory/results/verify_rates.json",
        "theory/results/certificates/last.jsonl",
        "theory/worst_case/findings.md",
        "theory/theorems/README.md",
        "deep/results/ladder/width8_to-loss_iid_K01.json",
        "deep/campaigns/ladder.toml",
    ):
        assert name in files
    assert not any(name.startswith(("tests", "benchmarks")) for name in files)


def test_figures_of_the_installed_results_go_to_the_folder_one_is_in(
    installed: Installed, tmp_path: Path
) -> None:
    before = installed.files()
    done = installed.run("lsgd-figures", "rounds-to-loss", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "figures" / "rounds-to-loss.png").is_file()
    assert installed.files() == before
    # The repository around the environment is another project's.
    made = json.loads((tmp_path / "figures" / "rounds-to-loss.json").read_text())
    assert made["commit"] == "unknown" and made["versions"]["local-sgd-rates"] == version()
    assert made["command"] == "lsgd-figures rounds-to-loss"


def test_a_mistake_is_a_line_that_names_the_script(installed: Installed, tmp_path: Path) -> None:
    done = installed.run("lsgd-verify", "--nosuch", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "(see lsgd-verify --help)" in done.stderr


def test_without_torch_the_deep_commands_say_so(installed: Installed, tmp_path: Path) -> None:
    done = installed.run("lsgd-deep", "--help", cwd=tmp_path, torch=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: this command needs torch, which is not installed: pip")
    assert done.stderr.count("\n") == 1


def test_without_torch_the_theory_works(installed: Installed, tmp_path: Path) -> None:
    done = installed.run("lsgd-figures", "--list", cwd=tmp_path, torch=False)
    assert done.returncode == 0 and "rounds-to-loss" in done.stdout
