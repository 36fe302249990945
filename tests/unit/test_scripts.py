"""The shell scripts parse, stay small, name no machine of ours, and do what their helpers promise."""

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.integration.processes import require_program

REPOSITORY = Path(__file__).resolve().parents[2]
PLAIN_TEXT = {"bin/_packages", "etc/guest/metadata.awk"}
SCRIPTS = sorted(
    path
    for pattern in ("bin/*", ".ci/*", "etc/guest/*")
    for path in REPOSITORY.glob(pattern)
    if path.is_file() and str(path.relative_to(REPOSITORY)) not in PLAIN_TEXT
)
each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(REPOSITORY)))


def bash(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the functions of bin/_lib.sh at hand."""
    text = f'set -euo pipefail; ROOT="{REPOSITORY}"; . "{REPOSITORY}/bin/_lib.sh"; {command}'
    environment = {**os.environ, **environment}
    return subprocess.run(
        ["bash", "-c", text], capture_output=True, text=True, check=False, env=environment, timeout=60
    )


@each_script
def test_a_script_parses(script: Path) -> None:
    shell = "bash" if "bash" in script.read_text().partition("\n")[0] or script.suffix == ".sh" else "sh"
    done = subprocess.run([shell, "-n", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@each_script
def test_a_script_that_is_run_is_executable_and_strict(script: Path) -> None:
    text = script.read_text()
    assert bool(script.stat().st_mode & 0o111) == text.startswith("#!")
    assert not text.startswith("#!/bin/bash") or "\nset -euo pipefail\n" in text


@each_script
def test_a_script_and_its_functions_are_small(script: Path) -> None:
    lines = script.read_text().splitlines()
    assert len(lines) <= 500
    starts = [number for number, line in enumerate(lines) if re.match(r"[a-z_]+\(\) \{", line)]
    for start in starts:
        length = next(
            (n for n, line in enumerate(lines[start:], 1) if line.startswith("}") or line.endswith(("; }", "; };"))),
            len(lines),
        )
        assert length <= 50, f"{lines[start]} has {length} lines"


@each_script
def test_a_script_names_no_folder_of_one_machine(script: Path) -> None:
    assert not re.search(r"(?<![\w.}\"])/(work|home|root|mnt|opt|srv)/\w", script.read_text())


@each_script
def test_shellcheck_finds_nothing(script: Path) -> None:
    require_program("shellcheck")
    arguments = ["-x", "-P", "SCRIPTDIR", *(["-s", "bash"] if script.suffix == ".sh" else [])]
    done = subprocess.run(
        ["shellcheck", *arguments, script], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stdout


def test_packages_are_listed_by_purpose_and_once() -> None:
    every = bash("packages python build host servers").stdout.split()
    assert {"python3-venv", "libvirt-dev", "busybox-static", "rabbitmq-server"} <= set(every)
    assert len(every) == len(set(every))
    assert bash("packages python").stdout.split() == ["ca-certificates", "python3", "python3-venv"]


@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="dpkg-query is Debian's: package checks run only there")
def test_a_package_that_is_not_installed_is_missing() -> None:
    done = bash('packages() { printf "%s\\n" dpkg no-such-package; }; missing_packages any')
    assert done.stdout.split() == ["no-such-package"]


def test_a_process_id_is_believed_only_while_the_same_process_has_it(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with subprocess.Popen(["sleep", "60"]) as process:
        bash(f"remember_pid {file} {process.pid}")
        assert bash(f"running_pid {file}").stdout.strip() == str(process.pid)
        pid, started = file.read_text().split()
        file.write_text(f"{pid} {int(started) + 1}\n")
        assert bash(f"running_pid {file}").returncode == 1
        bash(f"remember_pid {file} {process.pid}")
        process.kill()
    assert bash(f"running_pid {file}").returncode == 1
    assert bash(f"running_pid {tmp_path}/none").returncode == 1


def test_a_process_that_has_ended_is_gone_though_nobody_asked_for_its_end(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with subprocess.Popen(["sleep", "60"]) as process:
        bash(f"remember_pid {file} {process.pid}")
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert bash(f"running_pid {file}").returncode == 1


def test_waiting_ends_with_success_or_after_its_time(tmp_path: Path) -> None:
    assert bash("wait_until 5 true").returncode == 0
    started = time.monotonic()
    assert bash("wait_until 1 false").returncode == 1
    assert 0.5 < time.monotonic() - started < 10


def test_a_python_that_is_too_old_is_refused_in_words() -> None:
    done = bash("find_python", PYTHON="/bin/false")
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr
    assert "PYTHON=/bin/false" in done.stderr


@pytest.mark.parametrize("program", ["nova-compute", "nova-manage", "nova-scheduler"])
def test_a_program_without_its_environment_says_what_to_run(program: str, tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "bin", tmp_path / "bin")
    done = subprocess.run([tmp_path / "bin" / program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "run bin/quickstart or bin/test first" in done.stderr


def test_a_program_is_found_through_a_link_and_ignores_the_folder_it_is_started_in(tmp_path: Path) -> None:
    bin_folder, python = tmp_path / "a" / "bin", tmp_path / "a/.venv/bin/python"
    shutil.copytree(REPOSITORY / "bin", bin_folder)
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@" path=$PYTHONPATH\n')
    python.chmod(0o755)
    link = tmp_path / "nova-manage"
    link.symlink_to(bin_folder / "nova-manage")
    done = subprocess.run(
        [link, "vm", "a b"], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": "/stray"}
    )
    assert done.stdout == "-P -m compute.cli vm a b path=\n"


@pytest.mark.parametrize("program", ["quickstart", "test"])
def test_help_is_the_text_at_the_top(program: str) -> None:
    done = subprocess.run([REPOSITORY / "bin" / program, "--help"], capture_output=True, text=True, check=True)
    assert f"bin/{program}" in done.stdout
    assert "set -euo" not in done.stdout


def test_quickstart_refuses_what_it_does_not_know() -> None:
    for argument in ("--nonsense", "--driver=vmware"):
        done = subprocess.run([REPOSITORY / "bin/quickstart", argument], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert argument.removeprefix("--driver=") in done.stderr


def test_quickstart_without_root_takes_the_fake_driver_and_says_what_is_left_out() -> None:
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        shutil.copytree(REPOSITORY / "bin", f"{folder}/bin")
        for name in ("setup.cfg", "pyproject.toml"):
            shutil.copy(REPOSITORY / name, folder)
        command = [*user, f"{folder}/bin/quickstart"]
        environment = {**os.environ, "PYTHON": "/bin/false"}  # so that it ends before it installs anything
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert "without root there are no real guests here: taking the simulated hypervisor" in done.stdout
    assert "Left out: libvirt" in done.stdout
    assert "needs Python" in done.stderr
