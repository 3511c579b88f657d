"""Random networks to explore, of `transformers` and ours, an application without a socket, and a real server."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import uvicorn
from starlette.testclient import TestClient

from experiments.explore.server import create_app
from experiments.explore.subject import Subject
from lab.device import Device
from lab.guard import list_hosts
from lab.server import listen
from lab.texts import Texts
from model import Tokenizer

SIZES = dict(n_layer=3, n_head=5, n_embd=35, n_positions=61, vocab_size=50257)
LABELS = ("anger", "fear", "joy", "love")
TEXT = "i felt so happy 🦜 at work"  # the emoji is several tokens
DONORS = [
    "i was afraid of him",
    "my friend is furious again today",
    "not one good word, and then she smiled at me",
    "what a day",
    "we were happy in that small town by the sea",
    "he is mad",
    "nobody came to my party",
    "i love how you smile when you are tired",
    "the dog barked all night, and i did not sleep",
    "good news",
    "she was scared of the dark as a child",
    "they won again",
]
PORT = 8642


def make_subject(model, name: str, source: str, run=None) -> Subject:
    """Return a random network of the tiny shape among a few texts."""
    tokenizer, device = Tokenizer.load("gpt2-mini"), Device.choose("cpu", "fp32")
    labels = getattr(model, "labels", None)
    sequences = [tokenizer.encode(text) for text in DONORS]
    donors = Texts("train", np.arange(len(DONORS)), DONORS, sequences, np.arange(len(DONORS)) % 4)
    model = model.eval().requires_grad_(False)
    examples = [{"text": text, "label": None, "predicted": None} for text in (TEXT, DONORS[2])]
    for shift, example in enumerate(examples if labels else []):  # the first one is right, the second one is not
        predicted = int(model(torch.tensor([tokenizer.encode(example["text"])])).argmax())
        example |= {"label": labels[(predicted + shift) % len(labels)], "predicted": labels[predicted]}
    return Subject(name, source, model, tokenizer, device, donors, examples, "donors", "ab" * 32, run)


@pytest.fixture(scope="session")
def clf_network(reference):
    """A classifier: `hf` of transformers, `ours` of the same weights."""
    return reference("GPT2ForSequenceClassification", **SIZES, id2label=dict(enumerate(LABELS)))


@pytest.fixture(scope="session")
def lm_network(reference):
    return reference("GPT2LMHeadModel", **SIZES)


@pytest.fixture(scope="session")
def neo_network(reference):
    """A GPT-Neo, whose layer 1 sees fewer tokens than TEXT has."""
    sizes = dict(num_layers=3, num_heads=5, hidden_size=35, max_position_embeddings=61, vocab_size=50257)
    return reference("GPTNeoForCausalLM", **sizes)


@pytest.fixture(scope="session")
def subject(clf_network, tmp_path_factory) -> Subject:
    """A classifier, of a run that has no `ablate` folder."""
    run = tmp_path_factory.mktemp("runs") / "one"
    return make_subject(clf_network.ours, "one", str(clf_network.folder), run)


@pytest.fixture(scope="session")
def language_subject(lm_network) -> Subject:
    return make_subject(lm_network.ours, "tiny", str(lm_network.folder))


@pytest.fixture(scope="session")
def neo_subject(neo_network) -> Subject:
    return make_subject(neo_network.ours, "neo", str(neo_network.folder))


@pytest.fixture
def client(subject) -> TestClient:
    """Requests to the application, without a socket."""
    return make_client(subject)


@pytest.fixture
def language_client(language_subject) -> TestClient:
    return make_client(language_subject)


@pytest.fixture
def open_client():
    return make_client


def make_client(subject: Subject) -> TestClient:
    return TestClient(create_app(subject, list_hosts(PORT, ())), base_url=f"http://127.0.0.1:{PORT}")


@pytest.fixture(scope="module")
def server(subject) -> Iterator[str]:
    """The address of a real server on a free port, e.g. "http://127.0.0.1:40000/"."""
    with serve(subject) as address:
        yield address


@contextmanager
def serve(subject: Subject, allowed: Sequence[str] = ()) -> Iterator[str]:
    """Serve this subject in a thread, and yield the address."""
    with listen("127.0.0.1", 0) as listener:
        hosts = list_hosts(listener.getsockname()[1], allowed)
        config = uvicorn.Config(create_app(subject, hosts), log_level="warning", access_log=False)
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        while not running.started and thread.is_alive():
            thread.join(0.01)
        try:
            yield f"http://{hosts[0]}/"
        finally:
            running.should_exit = True
            thread.join()
