"""Makes context managers that Ctrl-C cannot interrupt while they are entered or left.

``trio.lowlevel.enable_ki_protection`` on the generator alone leaves the code of ``contextlib`` around it open to a
``KeyboardInterrupt``. Here entering and leaving are protected as a whole, and the block between them is not.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from types import TracebackType
from typing import ParamSpec, TypeVar

import trio

P = ParamSpec("P")
T = TypeVar("T")


class _Protected(AbstractAsyncContextManager[T]):
    def __init__(self, context: AbstractAsyncContextManager[T]) -> None:
        self._context = context

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> T:
        return await self._context.__aenter__()

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> bool | None:
        return await self._context.__aexit__(kind, error, at)


def protected_context(function: Callable[P, AsyncIterator[T]]) -> Callable[P, AbstractAsyncContextManager[T]]:
    """Do the same as ``contextlib.asynccontextmanager``, and protect entering and leaving from Ctrl-C."""
    make = asynccontextmanager(function)

    @wraps(function)
    def open_protected(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T]:
        return _Protected(make(*args, **kwargs))

    return open_protected
