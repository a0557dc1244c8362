"""The rule by which ``--only ID`` of every command chooses sequences."""


def is_named(only: str, sequence: int, request_id: str | None) -> bool:
    """Return whether ``only`` names a sequence: by its number, or by its caller's name for the request.

    The texts of one request for embeddings are several sequences of one name, and a client may use a name twice: then
    it names all of them.
    """
    return only in (request_id, str(sequence))
