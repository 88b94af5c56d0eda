from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from agent.base import environment

PROGRAM = """
import sys
from agent.base import environment
try:
    environment.check()
except environment.ForeignPackage as error:
    sys.exit(str(error))
"""


def test_this_environment_is_whole() -> None:
    environment.check()


def test_a_folder_on_the_python_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "coordinator").mkdir()
    (tmp_path / "coordinator" / "__init__.py").write_text("raise SystemExit('was imported')\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-P", "-c", PROGRAM], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"The package coordinator would be loaded from {tmp_path}" in done.stderr
