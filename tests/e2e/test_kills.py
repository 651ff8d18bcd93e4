"""Killed at a change of a file or at any moment, a command that is given again ends as if nothing had happened.

ANOMALY_KILLS=100 kills more often; `kills.py` says which commands and where.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from launching import ROOT

pytestmark = pytest.mark.slow
SHARES = ["adgan,fanogan", "ganomaly,autoencoder,kde", "multi_kd,deep_svdd", "store,evaluate,report,predict,study"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names of open files are read there")
@pytest.mark.parametrize("share", SHARES)
def test_what_is_killed_is_healed(share: str) -> None:
    kills = max(4, int(os.environ.get("ANOMALY_KILLS", "16")) // len(SHARES))
    words = [sys.executable, "tests/e2e/kills.py", "--kills", str(kills), "--only", share]
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
