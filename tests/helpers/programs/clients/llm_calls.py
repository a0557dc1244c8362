"""Calls a server with the command `llm` and its plugin `llm-ollama`, and prints the results as JSON.

Its server is that of the environment variable OLLAMA_HOST, its own files are in LLM_USER_PATH.
"""

import json
import subprocess
import sys
from pathlib import Path

MODELS, SHARED = json.loads(sys.argv[2]), json.loads(sys.argv[3])
LLM = Path(sys.executable).with_name("llm")
FUNCTION = """
def weather(city: str) -> str:
    "Tell the weather of a city."
    return f"sunny in {city}"
"""


def llm(*arguments: str) -> tuple[int, str]:
    """Run the command, and return its exit code and what it printed."""
    done = subprocess.run([LLM, *arguments], check=False, capture_output=True, text=True)
    return done.returncode, (done.stdout + done.stderr).strip()


def named(kind: str) -> tuple[str, str]:
    """Return the arguments that name a model as the plugin does."""
    return "-m", f"ollama/{MODELS[kind]}"


limits = ("-o", "seed", "7", "-o", "num_predict", "60")
told = {
    "models": llm("models", "--query", "ollama")[1],
    "whole": llm(*named("chat"), "--no-stream", *limits, "x"),
    "streamed": llm(*named("chat"), *limits, "x"),
    "system": llm(*named("chat"), "--system", "be", *limits, "x"),
    "again": llm("--continue", *limits, "y"),
    "schema": llm(*named("schema"), "--schema", json.dumps(SHARED["schema"]), *limits, "x"),
    "tools": llm(*named("tool"), "--functions", FUNCTION, "--tools-debug", "--chain-limit", "2", *limits, "x"),
}
if MODELS["vectors"]:
    told["vectors"] = llm("embed", *named("vectors"), "--content", "a")
print(json.dumps(told))  # noqa: T201
