"""The demo in real Chromium on real nodes and a real Redis, under node's test runner.

``TEST_SCREENSHOTS=some/directory scripts/test -k demo`` keeps the screenshots.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.js import npm

pytestmark = [pytest.mark.browser, pytest.mark.redis, pytest.mark.timeout(900)]


@pytest.mark.parametrize("name", ["demo", "access"])
def test_demo(name: str) -> None:
    npm.install()
    report = npm.run_tests(Path(__file__).with_name(f"{name}.test.mjs"), timeout_s=800)
    assert "ℹ fail 0" in report and "ℹ skipped 0" in report and "ℹ pass 0" not in report, report
