"""Runs the commands ``reenact serve`` and ``reenact models``: reads their arguments and prints what is served."""

import argparse
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args
from urllib.parse import urlsplit

from platformdirs import user_state_path

from reenact.actors.errors import EngineBroken, InvalidRequest, shown
from reenact.runtime.engine.protocol import Determinism
from reenact.runtime.model_store import StoredModel, full_name, installed, named_model, stored_models
from reenact.runtime.regular import text_of_name
from reenact.runtime.terminal import Spans, argument, flush, print_json, printer, tell, visible

if TYPE_CHECKING:
    from reenact.runtime.http.on_demand import ServedModel

HOST, PORT = "127.0.0.1", 11434
"""The address on which ollama listens and to which its clients connect by default."""

FLAGS: Final = {"model": "MODEL", "n_slots": "--slots", "host": "--host", "keep_alive": "--keep-alive"}

_HOST_NAME: Final = "OLLAMA_HOST"
_SETTINGS: Final = ("n_slots", "n_batch", "n_threads", "determinism")
_N_CTX: Final = 4096

SERVE_EXAMPLE: Final = """\
examples:
  reenact serve
  reenact serve llama3.2 small=path/to/model.gguf --port 8080 --log-dir logs
"""


def add_serve(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``reenact serve``."""
    parser.set_defaults(run=serve, flags=FLAGS, log=None)
    parser.add_argument(
        "models",
        nargs="*",
        type=argument,
        metavar="MODEL | NAME=FILE",
        help="a name that `reenact models` lists, or a name and its file (default: the installed SmolLM2)",
    )
    parser.add_argument("--host", metavar="HOST", help=f"the address to listen on (default: $OLLAMA_HOST, or {HOST})")
    parser.add_argument("--port", type=int, metavar="N", help=f"default: that of $OLLAMA_HOST, or {PORT}; 0 for any")
    parser.add_argument("--log-dir", type=Path, metavar="DIR", help="the folder of logs (default: in the user's state)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the latest log of each model if the server was killed; a client that repeats a request with"
        " its x-request-id gets the answer",
    )
    parser.add_argument("--no-log", action="store_true", help="record nothing")
    parser.add_argument(
        "--keep-alive",
        metavar="TIME",
        help='how long a model stays loaded after its last request: a time such as "5m", seconds, or -1 for ever'
        " (default: $OLLAMA_KEEP_ALIVE, or 5m)",
    )
    parser.add_argument(
        "--origin",
        action="append",
        type=argument,
        default=[],
        metavar="URL",
        help="let pages of this origin send requests too; $OLLAMA_ORIGINS has more, separated by commas",
    )
    parser.add_argument("--api-keys", type=Path, metavar="FILE", help="require one of the keys in it, one on each line")
    parser.add_argument("--slots", dest="n_slots", type=int, metavar="N", help="sequences at a time (default: 4)")
    parser.add_argument(
        "--n-ctx", type=int, metavar="N", default=_N_CTX, help=f"cells for each sequence (default: {_N_CTX})"
    )
    parser.add_argument("--n-batch", type=int, metavar="N", help="rows in a batch (default: 64)")
    parser.add_argument("--n-threads", type=int, metavar="N", help="threads that compute (default: one for each CPU)")
    parser.add_argument("--determinism", choices=get_args(Determinism), help="as for generate (default: auto)")
    parser.add_argument("--verbose", action="store_true", help="show accesses and selected events on stderr")


def add_models(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``reenact models``."""
    parser.set_defaults(run=models, flags=FLAGS, log=None)
    parser.add_argument("--json", action="store_true", help="print a JSON object for each model")


def serve(parsed: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    from reenact.runtime.api import llama_engine  # trio

    try:
        from reenact.runtime.http import server
        from reenact.runtime.http.ollama.requests import keep_alive
        from reenact.runtime.http.on_demand import KEEP_ALIVE, ServedModel
    except ImportError as error:
        cure = "pip install '.[serve]' in a checkout of reenact installs it"
        raise EngineBroken(f"the server is not installed ({error}): {cure}") from None
    stored = list(_asked_models(parsed.models))
    llama_engine(stored[0].path)  # So that a missing llama.cpp is an error now, and not at the first request.
    folder = None if parsed.no_log else parsed.log_dir or _log_folder()
    settings = {name: getattr(parsed, name) for name in _SETTINGS if getattr(parsed, name) is not None}
    served = [
        ServedModel(stored=one, n_ctx=parsed.n_ctx, log_folder=folder, settings=settings, resume=parsed.resume)
        for one in stored
    ]
    kept = parsed.keep_alive or os.environ.get("OLLAMA_KEEP_ALIVE")
    serving = server.Serving(
        served=served,
        keep_alive=keep_alive("keep_alive", _number_or_text(kept)) if kept else KEEP_ALIVE,
        origins=[*parsed.origin, *filter(None, os.environ.get("OLLAMA_ORIGINS", "").split(","))],
        keys=[] if parsed.api_keys is None else _keys(parsed.api_keys),
        warn=lambda warning: tell("reenact", warning),
    )
    host, port = address(os.environ.get(_HOST_NAME, ""))
    host, port = parsed.host or host, port if parsed.port is None else parsed.port
    if not 0 <= port <= 65535:  # noqa: PLR2004  # what a port may be
        raise InvalidRequest("--port", "expected 0 to 65,535")
    try:
        listener = server.listening(host, port)
    except OSError as error:
        raise InvalidRequest("host", f"{host}:{port} cannot be listened on: {error.strerror}") from None
    _greet(served, _url(host, listener.getsockname()[1]), folder)
    server.run(serving, listener)
    return 0


def models(parsed: argparse.Namespace) -> int:
    """List the models that have a name."""
    show = printer(sys.stdout)
    found = stored_models()
    width = max((len(visible(one.name)) for one in found), default=0)
    for one in found:
        if parsed.json:
            print_json(
                {"name": one.name, "store": one.store, "file": text_of_name(one.path), "size": one.path.stat().st_size}
            )
            continue
        size = f"{one.path.stat().st_size / 1e6:,.0f} MB"
        show([(f"{visible(one.name):<{width}}", "bold"), (f"  {size:>12}  {one.store}", "dim")])
    flush()
    return 0


def address(written: str) -> tuple[str, int]:
    """Return host and port of ``OLLAMA_HOST``: a host, host:port, :port or a URL, each part with its default.

    Raises:
        InvalidRequest: It is none of these.
    """
    written = written.strip().strip("\"'")
    scheme, separator, rest = written.partition("://")
    default = {"http": 80, "https": 443}.get(scheme.lower(), PORT) if separator else PORT
    try:
        parts = urlsplit(f"//{rest if separator else written}")
        host, port = parts.hostname or HOST, parts.port
    except ValueError:
        raise InvalidRequest(_HOST_NAME, f"expected HOST, HOST:PORT, :PORT or a URL, got {shown(written)}") from None
    return host, default if port is None else port


def _asked_models(asked: list[str]) -> Iterator[StoredModel]:
    """Return the models to serve, each name once."""
    if not asked:
        yield installed()
        return
    seen: set[str] = set()
    for written in asked:
        name, separator, file = written.partition("=")
        if separator and not Path(written).exists():
            model = StoredModel(name=full_name(name), path=Path(file), store="installed")
        else:
            model = named_model(written)
        with model.path.open("rb"):
            pass  # A missing file must be an error when the server starts.
        if model.name in seen:
            raise InvalidRequest("model", f"{shown(model.name)} is given twice: NAME=FILE gives one another name")
        seen.add(model.name)
        yield model


def _number_or_text(written: str) -> float | str:
    return float(written) if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", written) else written


def _keys(path: Path) -> list[str]:
    keys = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    if not keys:
        raise InvalidRequest("--api-keys", "there is no key in the file")
    return keys


def _log_folder() -> Path:
    return user_state_path("reenact") / "logs"


def _url(host: str, port: int) -> str:
    host = {"": HOST, "0.0.0.0": HOST, "::": "::1"}.get(host, host)  # noqa: S104  # it is printed, not listened on
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _greet(served: "list[ServedModel]", url: str, folder: Path | None) -> None:
    """Print the address, the models, the folder of logs, and a command to try."""
    show = printer(sys.stdout)
    for line in _greeting(served, url, folder):
        show(line)
    flush()


def _greeting(served: "list[ServedModel]", url: str, folder: Path | None) -> Iterator[Spans]:
    yield [("ollama's and OpenAI's API at ", ""), (url, "bold")]
    width = max(len(visible(one.name)) for one in served)
    for one in served:
        yield [
            ("  model  ", "dim"),
            (f"{visible(one.name):<{width}}  ", "bold"),
            (text_of_name(one.stored.path), "dim"),
        ]
    yield [("  logs   ", "dim"), ("none" if folder is None else text_of_name(folder), "")]
    name = served[0].name.removesuffix(":latest")
    body = f'{{"model": "{visible(name)}", "prompt": "Why is the sky blue?"}}'
    yield [("  try    ", "dim"), (f"curl {url}/api/generate -d '{body}'", "")]
