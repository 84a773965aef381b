"""The files in deploy/: systemd verifies the unit, hadolint and our own rules the Dockerfiles."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile*"))
BIN = Path(sys.executable).parent


def read_instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Instructions and what follows each, continued lines joined."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    return [(line.split()[0], line.partition(" ")[2]) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
class TestDockerfiles:
    def test_hadolint_has_nothing_to_say(self, dockerfile: Path) -> None:
        hadolint = BIN / "hadolint"
        if not hadolint.exists():
            pytest.skip("hadolint isn't installed")
        done = subprocess.run([hadolint, dockerfile], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "")

    def test_base_is_pinned(self, dockerfile: Path) -> None:
        bases = [rest.split()[0] for name, rest in read_instructions(dockerfile) if name == "FROM"]
        assert bases
        for base in bases:
            assert re.search(r":[a-z]?\d+\.\d+\.\d+", base), f"{base} may change"

    def test_runs_as_somebody_without_rights(self, dockerfile: Path) -> None:
        instructions = read_instructions(dockerfile)
        (user,) = [rest for name, rest in instructions if name == "USER"]
        assert int(user) > 0
        names = [name for name, _ in instructions]
        assert "RUN" not in names[names.index("USER") :]

    def test_what_is_copied_is_there(self, dockerfile: Path) -> None:
        copied = set()
        for name, rest in read_instructions(dockerfile):
            if name == "COPY" and "--from" not in rest:
                sources = rest.split()[:-1]
                assert all((ROOT / source).exists() for source in sources), rest
                copied |= set(sources)
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
        assert {package.partition("/")[0] for package in packages} < copied
        assert {project["project"]["readme"], "pyproject.toml", "constraints.txt"} < copied

    def test_starts_what_is_there(self, dockerfile: Path) -> None:
        told = dict(read_instructions(dockerfile))
        assert told["ENTRYPOINT"] == '["mer-run"]'
        assert told["CMD"] == '["--config", "/etc/mer/mer.toml"]'
        assert "deploy/mer.toml /etc/mer/mer.toml" in dockerfile.read_text()


def test_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze")
    unit = (DEPLOY / "mer-run.service").read_text()
    assert "ExecStart=/opt/mer/venv/bin/mer-run --config /etc/mer/mer.toml\n" in unit
    # systemd wants to find the command.
    here = tmp_path / "mer-run.service"
    here.write_text(unit.replace("/opt/mer/venv/bin", str(BIN)))
    done = subprocess.run([analyze, "verify", here], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_options(tmp_path: Path) -> None:
    """All of mer.toml's, those that are commented out too, until the camera is waited for."""
    text = (DEPLOY / "mer.toml").read_text()
    every = re.sub(r"^# (?=[\w-]+ = )", "", text, flags=re.MULTILINE)
    assert "\nrecord-every = 3600\n" in every
    every = every.replace("/var/lib/mer", str(tmp_path)).replace("8080", "0")
    # Neither is there where the tests run.
    every = every.replace("/dev/video0", "/dev/video77").replace("= true", '= "nowhere"', 1)
    (tmp_path / "mer.toml").write_text(every)
    command = [BIN / "mer-run", "--config", tmp_path / "mer.toml"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    waiting = [process.stdout.readline() for _ in range(2)]
    assert all('"state": "waiting"' in line for line in waiting), process.communicate()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    ours = [line for line in errors.splitlines() if not line.startswith("ALSA lib ")]
    assert ours
    assert all(line.startswith('{"time": ') for line in ours)
