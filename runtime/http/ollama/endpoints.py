"""The endpoints of ollama's API: each turns a request into a call of a runtime, and the result into a response."""

from typing import Any, Final

import orjson
import trio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute

from reenact.runtime.http.asking import streaming
from reenact.runtime.http.document import TEXT, Answers, DescribedRoute
from reenact.runtime.http.exchange import JSON, NDJSON, PLAIN, Outgoing, Reply
from reenact.runtime.http.failures import ollama_shape
from reenact.runtime.http.fields import Schema, read_body
from reenact.runtime.http.models import InUse, Models, card_for
from reenact.runtime.http.ollama import parts, shapes
from reenact.runtime.http.ollama.requests import (
    CHAT,
    EMBED,
    GENERATE,
    OLD_EMBED,
    SHOW,
    Generation,
    chat_asked,
    embed_asked,
    generate_asked,
    old_embed_asked,
    show_asked,
)
from reenact.runtime.http.thinking import Thought, thinking_reader
from reenact.runtime.http.tools import AnswerReader
from reenact.runtime.stream import Stream

OLLAMA: Final = "0.33.0"
"""The version of ollama whose API this follows; some clients choose features by it."""


class OllamaApi:
    """ollama's API over the models of an application."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def routes(self) -> list[BaseRoute]:
        """Return its routes."""
        return [
            DescribedRoute("/", _running, summary="Whether the server runs.", answers={PLAIN: TEXT}, is_open=True),
            DescribedRoute("/api/version", _version, summary="The version of the API.", answers={JSON: shapes.VERSION}),
            DescribedRoute("/api/tags", self._tags, summary="The served models.", answers={JSON: shapes.TAGS}),
            DescribedRoute("/api/ps", self._ps, summary="The loaded models.", answers={JSON: shapes.PS}),
            *(
                DescribedRoute(f"/api/{name}", answer, summary=summary, method="POST", body=body, answers=answers)
                for name, answer, summary, body, answers in (
                    ("show", self._show, "The description of a model.", SHOW, {JSON: shapes.SHOWN}),
                    ("generate", self._generate, "Complete a text.", GENERATE, _streamed(shapes.GENERATED)),
                    ("chat", self._chat, "Answer messages.", CHAT, _streamed(shapes.CHATTED)),
                    ("embed", self._embed, "Turn texts into vectors.", EMBED, {JSON: shapes.EMBEDDED}),
                    ("embeddings", self._old_embed, "Turn a text into one.", OLD_EMBED, {JSON: shapes.OLD_EMBEDDED}),
                )
            ),
            DescribedRoute("/api/delete", _unchanging, summary="Not supported.", method="DELETE", answers={}),
            *(
                DescribedRoute(f"/api/{name}", _unchanging, summary="Not supported.", method="POST", answers={})
                for name in ("pull", "push", "create", "copy")
            ),
        ]

    async def _tags(self, _: Request) -> JSONResponse:
        return JSONResponse({"models": [parts.tag(card) for card in await self._models.cards()]})

    async def _ps(self, _: Request) -> JSONResponse:
        return JSONResponse({"models": [parts.running(one) for one in self._models.running()]})

    async def _show(self, request: Request) -> JSONResponse:
        name = await read_body(request, show_asked)
        return JSONResponse(parts.shown(await card_for(self._models, name)))

    async def _generate(self, request: Request) -> Reply:
        return self._reply(await read_body(request, generate_asked), chat=False)

    async def _chat(self, request: Request) -> Reply:
        return self._reply(await read_body(request, chat_asked), chat=True)

    def _reply(self, asked: Generation, *, chat: bool) -> Reply:
        async def answer(out: Outgoing) -> None:
            shape = parts.OllamaAnswer(asked.model, chat=chat)
            if not asked.asks and asked.keep_alive == 0:
                self._models.unload(asked.model)
                await out.whole(shape.loaded("unload"))
                return
            async with self._models.using(asked.model, asked.keep_alive) as held:
                if asked.asks:
                    await _generated(out, asked, held, shape)
                else:
                    await out.whole(shape.loaded("load"))

        return Reply(answer, kind=NDJSON, failed=lambda error: _line(ollama_shape(error)))

    async def _embed(self, request: Request) -> Reply:
        asked = await read_body(request, embed_asked)

        async def answer(out: Outgoing) -> None:
            begun = trio.current_time()
            async with self._models.using(asked["model"], asked.get("keep_alive")) as held:
                found = await held.runtime.embed(
                    asked["input"],
                    **out.trace.names(),
                    dimensions=asked.get("dimensions"),
                    truncate=asked.get("truncate", True),
                )
                out.trace.recorded(held.runtime.header.session, (one.sequence for one in found))
                answered = {
                    "model": asked["model"],
                    "embeddings": [one.embedding for one in found],
                    "total_duration": round((trio.current_time() - begun) * 1e9),
                    "load_duration": round(held.load_seconds * 1e9),
                    "prompt_eval_count": sum(one.n_prompt - one.n_truncated for one in found),
                }
            await out.whole(answered)

        return Reply(answer)

    async def _old_embed(self, request: Request) -> Reply:
        asked = await read_body(request, old_embed_asked)

        async def answer(out: Outgoing) -> None:
            texts = [asked["prompt"]] if asked["prompt"] else []
            async with self._models.using(asked["model"], asked.get("keep_alive")) as held:
                found = await held.runtime.embed(texts, **out.trace.names())
                out.trace.recorded(held.runtime.header.session, (one.sequence for one in found))
            await out.whole({"embedding": found[0].embedding if found else []})

        return Reply(answer)


async def _generated(out: Outgoing, asked: Generation, held: InUse, shape: parts.OllamaAnswer) -> None:
    """Generate, and send the text as a stream or whole."""
    out.trace.recorded(held.runtime.header.session, ())
    async with await streaming(out.trace, asked, held) as stream:
        out.trace.recorded(held.runtime.header.session, [stream.sequence])
        if asked.tools is not None:
            reader = AnswerReader(f"call-{held.runtime.header.session}-{stream.sequence}")
            await _answered_with_tools(out, asked, stream, reader, shape, held=held)
            return
        thinking = thinking_reader(stream, held.runtime.chat_template if asked.prompt is None else "")
        if asked.stream:
            async for chunk in stream:
                thought = thinking.take(chunk.text)
                if thought != Thought() or chunk.logprobs:
                    await out.part(NDJSON, _line(shape.part(thought, chunk.logprobs)))
            out.trace.finish_reason = stream.completion.finish_reason
            if (thought := thinking.rest()) != Thought():
                await out.part(NDJSON, _line(shape.part(thought)))
            await out.part(NDJSON, _line(shape.end(stream.completion, held.load_seconds)))
            await out.end()
            return
        async for _ in stream:
            pass
        out.trace.finish_reason = stream.completion.finish_reason
    await out.whole(shape.whole(stream.completion, thinking.whole(stream.completion.text), held.load_seconds))


async def _answered_with_tools(
    out: Outgoing,
    asked: Generation,
    stream: Stream,
    reader: AnswerReader,
    shape: parts.OllamaAnswer,
    *,
    held: InUse,
) -> None:
    """Send an answer that is a text, or a call in one part."""
    load_seconds = held.load_seconds
    thinking = thinking_reader(stream, held.runtime.chat_template)
    async for chunk in stream:
        thought = thinking.take(reader.take(chunk.text).text)
        if asked.stream and thought != Thought():
            await out.part(NDJSON, _line(shape.part(thought)))
    completion = stream.completion
    out.trace.finish_reason = completion.finish_reason
    call = reader.call() if reader.complete() else None
    if not asked.stream:
        if call is not None:
            await out.whole(shape.whole_call(call, completion, load_seconds))
            return
        thought = thinking_reader(stream, held.runtime.chat_template).whole(completion.text)
        await out.whole(shape.whole(completion, thought, load_seconds))
        return
    if call is not None:
        await out.part(NDJSON, _line(shape.calling(call)))
    elif (thought := thinking.whole(reader.unsent().text)) != Thought():
        await out.part(NDJSON, _line(shape.part(thought)))
    await out.part(NDJSON, _line(shape.end(completion, load_seconds)))
    await out.end()


def _streamed(part: Schema) -> Answers:
    """Return the answers of an endpoint that sends one object, or a stream of parts of the same form."""
    return {NDJSON: part, JSON: part}


def _line(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)


async def _running(_: Request) -> PlainTextResponse:
    return PlainTextResponse("Ollama is running")


async def _version(_: Request) -> JSONResponse:
    return JSONResponse({"version": OLLAMA})


async def _unchanging(_: Request) -> Response:
    raise HTTPException(501, "reenact serves installed models, and does not download or change them")
