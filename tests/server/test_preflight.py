"""Files for connections, as a node takes them at its start. Ports and logins: test_cli.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def started_with(soft: int, hard: int, max_connections: int) -> subprocess.CompletedProcess[str]:
    """What is printed: the limit afterwards, and the default cap that follows from it; or the mistake."""
    program = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from server.accepting import default_max_connections
from server.preflight import take_files
take_files({max_connections})
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], default_max_connections())
"""
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=20)


def test_a_node_takes_all_the_files_it_may() -> None:
    assert started_with(512, 2048, 0).stdout.split() == ["2048", "1792"]


def test_more_connections_than_files_is_a_mistake_that_says_what_to_do() -> None:
    result = started_with(512, 2048, 1793)
    assert result.returncode != 0 and "max_connections=1793 needs 2049 open files and 2048 are allowed" in result.stderr
    assert "LimitNOFILE" in result.stderr
    assert started_with(512, 2048, 1792).returncode == 0
