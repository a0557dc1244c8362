"""schemathesis, unchanged, against a real server: it asks what our OpenAPI document allows, and what it does not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from reenact.replay import replay_log
from tests.helpers.paths import ROOT
from tests.helpers.serving import embedding_engine, scripted, served_model, serving

UNSUPPORTED = "^/api/(pull|push|create|copy|delete)$"
"""What is answered with 501, which schemathesis takes for a fault."""


@pytest.mark.long
async def test_the_document_holds(tmp_path: Path) -> None:
    """No answer is a fault of the server, or differs from the document; what fits it is taken, and the rest refused."""
    folder = tmp_path / "logs"
    async with serving(
        scripted("m", folder, draws_from="history"), served_model("v", folder, embedding_engine)
    ) as server:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--max-examples", "40"),
            *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
            *("--exclude-path-regex", UNSUPPORTED, "--seed", "1", "--continue-on-failure", "--no-shrink"),
            *("--generation-database", "none", "--request-timeout", "20"),
        ]
        env = os.environ | {"SCHEMATHESIS_HOOKS": "tests.runtime.http.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
        done = await trio.run_process(
            command, check=False, capture_stdout=True, stderr=subprocess.STDOUT, env=env, cwd=tmp_path
        )
    printed = done.stdout.decode()
    assert 0 == done.returncode, printed
    assert "Tested: 1" in printed
    assert [] == server.warnings
    logs = sorted(folder.glob("*.jsonl.zst"))
    assert logs
    assert {"same"} == {replay_log(log).verdict for log in logs}
