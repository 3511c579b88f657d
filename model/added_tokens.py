"""Tokens that are found in a text as they are written, before any merge: `[PAD]`, `<mask>`, new words."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

# As Unicode has it: Python counts four separators more.
WHITE_SPACE = "".join(char for char in map(chr, range(0x3001)) if char.isspace() and char not in "\x1c\x1d\x1e\x1f")


@dataclass(frozen=True)
class AddedToken:
    """A token that a text holds as it is written, with the white space before (`lstrip`) and after it (`rstrip`)."""

    content: str
    id: int
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False  # looked for after all others, in what they leave


@dataclass(frozen=True)
class Segment:
    """A part of a text, text[start:end]: an added token, or what stands between two."""

    start: int
    end: int
    token: AddedToken | None = None


class Finder:
    """Finds added tokens in texts: of those that begin at the same character, the longest."""

    def __init__(self, tokens: Sequence[AddedToken]) -> None:
        self.tokens = {token.content: token for token in tokens}
        longest_first = sorted(self.tokens, key=len, reverse=True)
        in_order = [[each for each in longest_first if self.tokens[each].normalized == late] for late in (False, True)]
        self.passes = [re.compile("|".join(map(re.escape, contents))) for contents in in_order if contents]

    def split(self, text: str) -> list[Segment]:
        """Return the segments of a text, in order; together they are all of it, and none is empty."""
        segments = [Segment(0, len(text))] if text else []
        for pattern in self.passes:
            parts = [[each] if each.token else self.split_segment(text, each, pattern) for each in segments]
            segments = [part for each in parts for part in each]
        return segments

    def split_segment(self, text: str, segment: Segment, pattern: re.Pattern[str]) -> list[Segment]:
        """Return the segments of a segment that holds none of the tokens of earlier passes."""
        parts, last = [], segment.start  # the end of the token before
        for match in pattern.finditer(text, segment.start, segment.end):
            token, (start, end) = self.tokens[match[0]], match.span()
            if token.lstrip:
                start = last + len(text[last:start].rstrip(WHITE_SPACE))
            if token.rstrip:
                end = segment.end - len(text[end : segment.end].lstrip(WHITE_SPACE))
            if start >= end:  # white space that the token before has taken
                continue
            if last < start:
                parts.append(Segment(last, start))
            parts.append(Segment(start, end, token))
            last = end
        return parts + ([Segment(last, segment.end)] if last < segment.end else [])
