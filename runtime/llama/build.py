"""Describes what computes here: llama.cpp's version, the features it was compiled for, and the CPU."""

import platform
from contextlib import suppress
from functools import cache
from pathlib import Path

from reenact.actors.header import EngineFacts
from reenact.runtime.llama.bindings import bindings, library_sha256, llama_cpp, text_of


@cache
def engine_facts() -> EngineFacts:
    """Return the facts of the build and the machine."""
    return EngineFacts(
        name="llama.cpp",
        versions={"llama-cpp-python": llama_cpp.__version__, "llama.cpp": text_of(bindings.llama_version())},
        system_info=text_of(llama_cpp.llama_print_system_info()),
        cpu=_cpu(),
        library_sha256=library_sha256(),
    )


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
