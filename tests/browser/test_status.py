"""The status page in real Chromium on real nodes and a real Redis (tests/browser/status.test.mjs).

``TEST_SCREENSHOTS=some/directory scripts/test -k status`` keeps the screenshots.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.js import npm

pytestmark = [pytest.mark.browser, pytest.mark.redis, pytest.mark.timeout(400)]


@pytest.mark.parametrize("name", ["status-cluster.test.mjs", "status.test.mjs"])
def test_status_page(name: str) -> None:
    npm.install()
    report = npm.run_tests(Path(__file__).with_name(name), timeout_s=350)
    assert "ℹ fail 0" in report and "ℹ skipped 0" in report and "ℹ pass 0" not in report, report
