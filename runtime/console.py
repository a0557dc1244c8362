"""Prints selected events for people, through structlog, each with its number ``n`` in the log.

It is off unless the application (or ``--verbose``) configured structlog, and nothing depends on it.
"""

from collections.abc import Callable

import structlog

from reenact.actors import events as e
from reenact.actors.errors import Failure
from reenact.actors.routing import ROUTES

Subscriber = Callable[[e.Record], None]


def warn(warning: str) -> None:
    """Print a warning that belongs to no record, if structlog is configured."""
    if structlog.is_configured():
        structlog.get_logger("reenact").warning(warning)


def subscriber() -> Subscriber | None:
    """Return a function that prints a record on the console; None if structlog is not configured."""
    if not structlog.is_configured():
        return None
    logger = structlog.get_logger("reenact")

    def show(record: e.Record) -> None:
        event = record.event
        match event:
            case e.SessionOpened():
                facts = {"session": event.session, "model": event.model.name, "slots": event.context.n_slots}
            case e.SessionClosed():
                facts = {}
            case e.RequestReceived():
                facts = {"sequence": event.sequence, "request_id": event.request_id, "characters": len(event.prompt)}
                if event.left_out:
                    logger.warning("RequestReceived", n=record.n, **facts, messages_left_out=event.left_out)
                    return
            case e.PromptTruncated(sequence=number, keep=keep, discard=discard):
                logger.warning("PromptTruncated", n=record.n, sequence=number, kept=keep, inputs_left_out=discard)
                return
            case e.ContextShifted(keep=keep, discard=discard):
                facts = {"sequence": event.sequence, "kept": keep, "inputs_left_out": discard}
            case e.SlotAssigned() | e.SlotYielded():
                facts = {"sequence": event.sequence, "slot": event.slot}
            case e.SequencePaused() | e.SequenceResumed() | e.RequestWithdrawn():
                facts = {"sequence": event.sequence}
            case e.SequenceFinished(error=None):
                facts = {"sequence": event.sequence, "finish_reason": event.finish_reason, "tokens": event.n_sampled}
            case e.SequenceFinished(error=Failure(kind=kind, reason=reason)):
                logger.warning("SequenceFinished", n=record.n, sequence=event.sequence, error=kind, reason=reason)
                return
            case e.RequestRefused(request_id=name, failure=failure):
                facts = {"request_id": name, "error": failure.kind, "field": failure.field, "reason": failure.reason}
                logger.warning("RequestRefused", n=record.n, **facts)
                return
            case e.RequestRejected() | e.RequestDisplaced():
                logger.warning(type(event).__name__, n=record.n, sequence=event.sequence, reason=event.failure.reason)
                return
            case e.BatchFailed() | e.EngineFailed() | e.ActorFailed():
                logger.error(ROUTES[type(event)].name, n=record.n, event_=event)
                return
            case _:
                return
        logger.info(ROUTES[type(event)].name, n=record.n, **facts)

    return show
