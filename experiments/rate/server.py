"""The addresses of the page. Everything is on disk: each request reads it anew, and an answer is there before the next
item is shown. A request says how many lines its tab has seen; the answer of a tab that lags behind changes nothing."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp

from lab.server import Json, make_app
from model import InputError

from .answers import Session, check_answer, check_pseudonym, open_session, read_lines, record
from .items import Items
from .protocol import PARTS, Step

PAGE = Path(__file__).parent / "page" / "rate.html"
GONE_ON = "Another tab has gone on with this pseudonym: here is where it is."
LONGEST = 24 * 3600  # seconds that count for one item


class Api:
    """What is answered to each request; `body` is parsed JSON. No await within: requests never mix."""

    def __init__(self, folder: Path, items: Items) -> None:
        self.folder, self.items = folder, items

    async def start(self, request: Request, body: Any) -> Json:
        """Answer with the rater's next item."""
        return describe(self.open(body))

    async def answer(self, request: Request, body: Any) -> Json:
        """Write an answer to the next item, or another one to the item before it, and answer with the next."""
        session = self.open(body)
        answer = body.get("answer")
        if body.get("lines") != session.lines:
            former = session.answers.get(str(body.get("step")), {})
            sent_twice = body.get("lines") == session.lines - 1 and former.get("answer") == answer
            return describe(session) | ({} if sent_twice else {"note": GONE_ON})
        steps = {step.name: step for step in list_open(session)}
        step = steps.get(str(body.get("step")))
        if step is None:
            raise InputError(f"step: expected the next one, or the one before it: {', '.join(steps) or 'none'}")
        check_answer(session, step, answer)
        try:
            record(session, step, answer, read_seconds(body.get("seconds")))
        except OSError as error:
            raise HTTPException(503, f"This answer is not saved: {error.strerror}. Answer once more.") from None
        return describe(self.open(body))

    async def download(self, request: Request, body: Any) -> Json:
        """Answer with all lines of a rater who has finished: they name the methods."""
        session = self.open(body)
        if len(session.answers) < len(session.steps):
            raise InputError("the answers can be downloaded once all are given")
        return {"lines": read_lines(session.path)}

    def open(self, body: Any) -> Session:
        if not isinstance(body, dict):
            raise InputError("expected an object")
        pseudonym = check_pseudonym(body.get("pseudonym"))
        try:
            return open_session(self.folder, pseudonym, self.items)
        except OSError as error:
            raise HTTPException(503, f"The answers are out of reach: {error.strerror}. Try once more.") from None
        except InputError as error:
            print(error, file=sys.stderr)  # it names a file, which is nothing to a rater
            raise HTTPException(503, "These answers are broken; the terminal that serves the page says how.") from None


def create_app(folder: Path, items: Items, hosts: Sequence[str]) -> ASGIApp:
    """Return the application. folder: of the answers; items: of new raters; hosts: the values of `Host` it answers."""
    api = Api(folder, items)
    posts = {"start": api.start, "answer": api.answer, "download": api.download}
    return make_app(PAGE, {}, posts, hosts)


def describe(session: Session) -> Json:
    """Return what a tab shows: the next item, and the one before it with its answer, which may still be changed."""
    shown: Json = {"step": None, "previous": None}
    for step in list_open(session):
        if step.name in session.answers:
            shown["previous"] = describe_step(session, step) | {"answer": session.answers[step.name]["answer"]}
        else:
            shown["step"] = describe_step(session, step)
    return shown | {"done": len(session.answers), "total": len(session.steps), "lines": session.lines}


def list_open(session: Session) -> list[Step]:
    """Return the steps that can be answered: the next one, and the one before it, unless that is of another part: a
    part may show what the one before it asked."""
    place = len(session.answers)
    around = session.steps[max(0, place - 1) : place + 1]
    return [step for step in around if place < len(session.steps) and step.part == around[-1].part]


def describe_step(session: Session, step: Step) -> Json:
    """Return an item without what it asks for: the names of methods, and the class that is to be predicted."""
    text, part = session.items.texts[step.text], PARTS[step.part]
    alike = [each.name for each in session.steps if each.part == step.part]
    return {
        "name": step.name,
        "kind": part.kind,
        "title": part.title,
        "instruction": part.instruction,
        "part": [*PARTS].index(step.part) + 1,
        "parts": len(PARTS),
        "place": alike.index(step.name) + 1,
        "places": len(alike),
        "words": text.words,
        "real": text.real,
        "labels": session.items.labels,
        "predicted": None if part.kind == "predict" else text.predicted,
        "weights": [text.weigh(method) for method in (step.left, step.right) if method],
    }


def read_seconds(seconds: Any) -> float:
    if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
        raise InputError("seconds: expected a number of at least 0")
    return round(float(min(seconds, LONGEST)), 3)
