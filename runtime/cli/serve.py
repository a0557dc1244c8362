"""Runs the commands ``reenact serve`` and ``reenact models``: reads their arguments and prints what is served."""

import argparse
import errno
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args
from urllib.parse import urlsplit

from platformdirs import user_state_path

from reenact.actors.errors import EngineBroken, InvalidRequest, shown
from reenact.runtime.cli.arguments import add_durability
from reenact.runtime.engine.protocol import ContextSettings, Determinism
from reenact.runtime.model_store import StoredModel, full_name, installed, named_model, stored_models
from reenact.runtime.regular import opened, text_of_name
from reenact.runtime.terminal import Spans, argument, flush, print_json, printer, tell, visible

if TYPE_CHECKING:
    from reenact.runtime.http.on_demand import ServedModel

HOST, PORT = "127.0.0.1", 11434
"""The address on which ollama listens and to which its clients connect by default."""

FLAGS: Final = {
    "model": "MODEL",
    "n_slots": "--slots",
    "n_ctx": "--n-ctx",
    "n_batch": "--n-batch",
    "n_threads": "--n-threads",
    "host": "--host",
}

_HOST_NAME: Final = "OLLAMA_HOST"
_ORIGINS_NAME: Final = "OLLAMA_ORIGINS"
_KEEP_ALIVE_NAME: Final = "OLLAMA_KEEP_ALIVE"
_NO_FILE: Final = "a model is mapped into memory, which only a file can be: save it to one"
_SETTINGS: Final = ("n_slots", "n_batch", "n_threads", "determinism")
_N_SLOTS, _N_CTX, _N_BATCH = 4, 4096, 64

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
    add_durability(parser)
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
    for flag, name, default, meaning in (
        ("--slots", "n_slots", _N_SLOTS, "sequences at a time"),
        ("--n-ctx", "n_ctx", _N_CTX, "cells for each sequence"),
        ("--n-batch", "n_batch", _N_BATCH, "rows in a batch"),
    ):
        told = f"{meaning} (default: {default})"
        parser.add_argument(flag, dest=name, type=int, metavar="N", default=default, help=told)
    parser.add_argument("--n-threads", type=int, metavar="N", help="threads that compute (default: one for each CPU)")
    parser.add_argument("--determinism", choices=get_args(Determinism), help="as for generate (default: auto)")
    parser.add_argument("--verbose", action="store_true", help="show accesses and selected events on stderr")


def add_models(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``reenact models``."""
    parser.set_defaults(run=models, flags=FLAGS, log=None)
    parser.add_argument("--json", action="store_true", help="print a JSON object for each model")


def serve(parsed: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; what no request could be served with is an error now, and not at the first one."""
    from reenact.runtime.api import llama_engine  # trio

    try:
        from reenact.runtime.http import server
        from reenact.runtime.http.on_demand import ServedModel
    except ImportError as error:
        cure = "pip install '.[serve]' in a checkout of reenact installs it"
        raise EngineBroken(f"the server is not installed ({error}): {cure}") from None
    if parsed.no_log and parsed.durability is not None:
        raise InvalidRequest("--durability", "nothing is recorded with --no-log")
    stored = list(_asked_models(parsed.models))
    llama_engine(stored[0].path)  # llama.cpp may be missing.
    for one in stored:
        _check_model(one.path)
    folder = _checked_folder(parsed)
    settings = _checked_settings(parsed)
    served = [
        ServedModel(stored=one, n_ctx=parsed.n_ctx, log_folder=folder, settings=settings, resume=parsed.resume)
        for one in stored
    ]
    serving = server.Serving(
        served=served,
        keep_alive=_keep_alive(parsed.keep_alive),
        origins=list(origins(parsed.origin, os.environ.get(_ORIGINS_NAME, ""))),
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
        cure = "; a server runs there: another --port, or 0 for any" if error.errno == errno.EADDRINUSE else ""
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise InvalidRequest("host", f"cannot listen on {where}: {error.strerror}{cure}") from None
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
            if not name.strip():
                raise InvalidRequest("model", f"{shown(written)} has no name before the file")
            model = StoredModel(name=full_name(name), path=Path(file), store="installed")
        else:
            model = named_model(written)
        if model.name in seen:
            raise InvalidRequest("model", f"{shown(model.name)} is given twice: NAME=FILE gives one another name")
        seen.add(model.name)
        yield model


def _check_model(path: Path) -> None:
    with opened(path, _NO_FILE) as file:
        if file.read(4) != b"GGUF":
            raise InvalidRequest("model", f"{path} is not a GGUF file")


def _checked_settings(parsed: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of each runtime but the context's length.

    Raises:
        InvalidRequest: No session can have them.
    """
    settings = {name: getattr(parsed, name) for name in _SETTINGS if getattr(parsed, name) is not None}
    ContextSettings(**{"n_threads": 1, "n_ctx": parsed.n_ctx} | settings)
    return settings if parsed.durability is None else {**settings, "durability": parsed.durability}


def _checked_folder(parsed: argparse.Namespace) -> Path | None:
    """Return the folder of the logs, which is made; None to record nothing.

    Raises:
        InvalidRequest: No file can be made in it.
    """
    if parsed.no_log:
        if parsed.resume or parsed.log_dir is not None:
            raise InvalidRequest("--no-log", "nothing is recorded, so there is nothing for --resume or --log-dir")
        return None
    folder: Path = parsed.log_dir or user_state_path("reenact") / "logs"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InvalidRequest("--log-dir", f"no log can be written in {folder}: {error.strerror}") from None
    return folder


def _keep_alive(given: str | None) -> float:
    from reenact.runtime.http.ollama.requests import keep_alive
    from reenact.runtime.http.on_demand import KEEP_ALIVE

    for name, written in (("--keep-alive", given), (_KEEP_ALIVE_NAME, os.environ.get(_KEEP_ALIVE_NAME))):
        if written:
            return keep_alive(name, _number_or_text(written))
    return KEEP_ALIVE


def origins(given: Sequence[str], of_ollama: str) -> Iterator[str]:
    """Return the Origins that may send requests, as browsers write them: without a slash at the end.

    Args:
        given: Those of the command line.
        of_ollama: ``OLLAMA_ORIGINS``, which has several, separated by commas.

    Raises:
        InvalidRequest: One of them is no origin.
    """
    variable = ((_ORIGINS_NAME, one) for one in of_ollama.split(","))
    for name, written in (*(("--origin", one) for one in given), *variable):
        origin = re.sub("(?<=[^/:])/$", "", written.strip())
        if origin and "://" not in origin and "*" not in origin:
            raise InvalidRequest(name, f'expected "*" or an origin such as "https://example.com", got {shown(origin)}')
        if origin:
            yield origin


def _number_or_text(written: str) -> float | str:
    return float(written) if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", written) else written


def _keys(path: Path) -> list[str]:
    try:
        keys = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise InvalidRequest("--api-keys", f"{path} is not text in UTF-8") from None
    if not keys:
        raise InvalidRequest("--api-keys", "there is no key in the file")
    return keys


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
