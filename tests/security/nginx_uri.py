"""nginx's own reading of a request target: an independent implementation of its documented behaviour."""

from __future__ import annotations

from collections.abc import Sequence


def nginx_uri(target: bytes) -> bytes | None:
    """What nginx chooses a ``location`` by (``$uri``, with merge_slashes on); None where it answers 400.

    A state machine over bytes, as in nginx; the verifier works on whole segments.
    """
    out = bytearray()
    state = resume = "usual"
    high = 0
    for byte in target:
        char = byte
        decoded = False
        if state == "quoted":
            if chr(char) not in "0123456789abcdefABCDEF":
                return None
            high, state = int(chr(char), 16), "second"
            continue
        if state == "second":
            if chr(char) not in "0123456789abcdefABCDEF":
                return None
            char, state, decoded = high * 16 + int(chr(char), 16), resume, True
            if char == 0:
                return None
            if char in b"%#?":  # decoded, these mean themselves
                out.append(char)
                state = "usual"
                continue
        if not decoded:
            if char == ord("%"):
                resume, state = state, "quoted"
                continue
            if char in b"?#":
                break
        step = _step(out, state, char)
        if step is None:
            return None
        state = step
    if state in ("quoted", "second"):
        return None
    if state == "dot":
        out.pop()
    elif state == "dot_dot" and not _climb(out):
        return None
    return bytes(out)


def _step(out: bytearray, state: str, char: int) -> str | None:
    """Take one character, decoded or not: the next state, or None where the path climbs above the root."""
    if char == ord("/"):
        if state == "slash":
            return "slash"
        if state == "dot":
            out.pop()
            return "slash"
        if state == "dot_dot":
            return "slash" if _climb(out) else None
        out.append(char)
        return "slash"
    out.append(char)
    if char == ord("."):
        return {"slash": "dot", "dot": "dot_dot"}.get(state, "usual")
    return "usual"


def _climb(out: bytearray) -> bool:
    """Drop ``/..`` and the segment before it."""
    del out[-3:]
    if not out:
        return False
    del out[out.rindex(b"/") + 1 :]
    return True


def matches(pattern: str, path: str) -> bool:
    """Whether a rule's path matches: ``*`` is one segment, ``**`` any number, none included."""
    return _match(pattern.split("/")[1:], path.split("/")[1:])


def _match(pattern: Sequence[str], segments: Sequence[str]) -> bool:
    if not pattern:
        return not segments
    if pattern[0] == "**":
        return any(_match(pattern[1:], segments[skipped:]) for skipped in range(len(segments) + 1))
    if not segments:
        return False
    taken = segments[0] != "" if pattern[0] == "*" else pattern[0] == segments[0]
    return taken and _match(pattern[1:], segments[1:])
