"""The error under the pages that Keras puts around it."""

from __future__ import annotations


def own_error(error: BaseException) -> BaseException:
    """The first error, if those that followed only repeat its message.

    Keras raises what happened in a layer's `call` anew, with what the layer was called
    with around the message, once for the trial of the shapes and once for the call.
    """
    while (first := error.__context__) is not None and _repeats(error, first):
        error = first
    return error


def _repeats(error: BaseException, first: BaseException) -> bool:
    message = str(first)
    return bool(message) and type(error) is type(first) and message in str(error)
