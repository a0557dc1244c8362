"""The endpoints of OpenAI's API: each turns a request into a call of a runtime, and the result into a response."""

from datetime import UTC, datetime
from typing import Literal

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute

from reenact.actors import events as e
from reenact.runtime.http.asking import streaming
from reenact.runtime.http.document import DescribedRoute, event_of
from reenact.runtime.http.exchange import JSON, SSE, Outgoing, Reply
from reenact.runtime.http.failures import openai_shape
from reenact.runtime.http.fields import read_body
from reenact.runtime.http.models import InUse, Models, card_for
from reenact.runtime.http.openai import objects, shapes
from reenact.runtime.http.openai.requests import (
    CHAT,
    COMPLETION,
    EMBEDDING,
    Question,
    chat_asked,
    completion_asked,
    embedding_asked,
)
from reenact.runtime.http.openai.responses import (
    RESPONDED,
    RESPONSE,
    RESPONSE_EVENT,
    ResponseAnswer,
    ResponseAsked,
    response_asked,
)
from reenact.runtime.http.thinking import ThinkingReader, Thought, thinking_reader
from reenact.runtime.http.tools import AnswerPart, AnswerReader
from reenact.runtime.results import Logprob
from reenact.runtime.stream import Stream


class OpenaiApi:
    """OpenAI's API over the models of an application."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def routes(self) -> list[BaseRoute]:
        """Return its routes."""
        return [
            DescribedRoute("/v1/models", self._list, summary="The served models.", answers={JSON: shapes.MODELS}),
            DescribedRoute("/v1/models/{name:path}", self._one, summary="A model.", answers={JSON: shapes.MODEL}),
            DescribedRoute(
                "/v1/chat/completions",
                self._chat,
                summary="Answer messages.",
                method="POST",
                body=CHAT,
                answers={JSON: shapes.CHATTED, SSE: event_of(shapes.CHAT_CHUNK)},
            ),
            DescribedRoute(
                "/v1/completions",
                self._completion,
                summary="Complete a text.",
                method="POST",
                body=COMPLETION,
                answers={JSON: shapes.COMPLETED, SSE: event_of(shapes.COMPLETION_CHUNK)},
            ),
            DescribedRoute(
                "/v1/responses",
                self._response,
                summary="Answer an input.",
                method="POST",
                body=RESPONSE,
                answers={JSON: RESPONDED, SSE: RESPONSE_EVENT},
            ),
            DescribedRoute(
                "/v1/embeddings",
                self._embedding,
                summary="Turn texts into vectors.",
                method="POST",
                body=EMBEDDING,
                answers={JSON: shapes.EMBEDDED},
            ),
        ]

    async def _list(self, _: Request) -> JSONResponse:
        data = [objects.entry(card) for card in await self._models.cards()]
        return JSONResponse({"object": "list", "data": data})

    async def _one(self, request: Request) -> JSONResponse:
        return JSONResponse(objects.entry(await card_for(self._models, request.path_params["name"])))

    async def _chat(self, request: Request) -> Reply:
        return self._reply(await read_body(request, chat_asked), "chat")

    async def _completion(self, request: Request) -> Reply:
        return self._reply(await read_body(request, completion_asked), "text")

    async def _response(self, request: Request) -> Reply:
        asked = await read_body(request, response_asked)
        shape = ResponseAnswer(asked, created=int(datetime.now(UTC).timestamp()))

        async def answer(out: Outgoing) -> None:
            async with self._models.using(asked.model) as held:
                await _responded(out, asked, held, shape)

        return Reply(answer, kind=SSE, failed=shape.failed)

    def _reply(self, asked: Question, kind: Literal["chat", "text"]) -> Reply:
        async def answer(out: Outgoing) -> None:
            async with self._models.using(asked.model) as held:
                await _generated(out, asked, held, kind)

        return Reply(answer, kind=SSE, failed=lambda error: objects.event(openai_shape(error)))

    async def _embedding(self, request: Request) -> Reply:
        asked = await read_body(request, embedding_asked)

        async def answer(out: Outgoing) -> None:
            async with self._models.using(asked.model) as held:
                found = await held.runtime.embed(
                    asked.texts, **out.trace.names(), dimensions=asked.dimensions, truncate=False
                )
                out.trace.recorded(held.runtime.header.session, (one.sequence for one in found))
            await out.whole(objects.embeddings(found, asked.model, asked.encoding))

        return Reply(answer)


async def _generated(out: Outgoing, asked: Question, held: InUse, kind: Literal["chat", "text"]) -> None:
    """Generate, and send the text as a stream or whole."""
    header = held.runtime.header
    out.trace.recorded(header.session, ())
    async with await streaming(out.trace, asked, held) as stream:
        out.trace.recorded(header.session, [stream.sequence])
        shape = objects.OpenaiAnswer(
            kind,
            identity=f"{header.session}-{stream.sequence}",
            model=asked.model,
            created=int(datetime.now(UTC).timestamp()),
            fingerprint=_fingerprint(header),
        )
        reader = None if asked.tools is None else AnswerReader(f"call-{header.session}-{stream.sequence}")
        thinking = thinking_reader(stream, held.runtime.chat_template if asked.prompt is None else "")
        if asked.stream:
            await _stream(out, asked, stream, shape, reader, thinking=thinking)
            return
        async for chunk in stream:
            if reader is not None:
                reader.take(chunk.text)
        out.trace.finish_reason = stream.completion.finish_reason
    thought = thinking.whole(stream.completion.text)
    if reader is None:
        await out.whole(shape.whole(stream.completion, thought))
    else:
        called = reader.complete() and stream.completion.finish_reason == "stop"
        await out.whole(shape.whole(stream.completion, thought, reader.call(), called=called))


async def _responded(out: Outgoing, asked: ResponseAsked, held: InUse, shape: ResponseAnswer) -> None:
    """Generate, and send a response as a stream of events or whole."""
    session = held.runtime.header.session
    out.trace.recorded(session, ())
    async with await streaming(out.trace, asked, held) as stream:
        out.trace.recorded(session, [stream.sequence])
        shape.identity = f"{session}-{stream.sequence}"
        thinking = thinking_reader(stream, held.runtime.chat_template)
        begun = False
        async for chunk in stream:
            if asked.stream:
                events = [] if begun else list(shape.begin())
                begun = True
                for event in (*events, *shape.take(thinking.take(chunk.text))):
                    await out.part(SSE, event)
        completion = stream.completion
        out.trace.finish_reason = completion.finish_reason
        if asked.stream:
            first = [] if begun else list(shape.begin())
            for event in (*first, *shape.take(thinking.rest()), *shape.end(completion)):
                await out.part(SSE, event)
            await out.end()
            return
    await out.whole(shape.whole(thinking.whole(completion.text), completion))


async def _stream(
    out: Outgoing,
    asked: Question,
    stream: Stream,
    shape: objects.OpenaiAnswer,
    reader: AnswerReader | None,
    *,
    thinking: ThinkingReader,
) -> None:
    """Send chunks, the first once there is text or an end."""
    first = shape.first()

    async def send(part: AnswerPart, logprobs: tuple[Logprob, ...] = ()) -> None:
        if reader is not None and (part.name is not None or part.arguments):
            await out.part(SSE, objects.event(shape.calling(part, reader.identity)))
        elif (thought := thinking.take(part.text)) != Thought() or logprobs:
            await out.part(SSE, objects.event(shape.chunk(thought, logprobs)))

    async for chunk in stream:
        if first is not None:
            await out.part(SSE, objects.event(first))
            first = None
        await send(AnswerPart(text=chunk.text) if reader is None else reader.take(chunk.text), chunk.logprobs)
    out.trace.finish_reason = stream.completion.finish_reason
    if first is not None:
        await out.part(SSE, objects.event(first))
    if reader is not None:
        await send(reader.rest())
    if (thought := thinking.rest()) != Thought():
        await out.part(SSE, objects.event(shape.chunk(thought)))
    called = reader is not None and reader.complete() and stream.completion.finish_reason == "stop"
    await out.part(SSE, objects.event(shape.last(stream.completion, called=called)))
    if asked.include_usage:
        await out.part(SSE, objects.event(shape.usage(stream.completion)))
    await out.part(SSE, objects.DONE)
    await out.end()


def _fingerprint(header: e.SessionOpened) -> str:
    """Return a fingerprint of the weights and the library, on which an answer depends besides its request."""
    weights, library = header.model.sha256[:8], header.engine.library_sha256[:8]
    return f"reenact-{header.reenact}-{weights or header.model.name}-{library or header.engine.name}"
