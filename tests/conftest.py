"""Shared fixtures: a tiny shape, and random `transformers` models that are loaded through our own loader."""

import gc
import os

gc.set_threshold(50_000, 10, 2)  # more than Python's own: a third of what collecting the tests took was spent in it

# What the environment may hold must not decide what a test sees. Some of it is read when a library is imported.
STEERING = "HF_", "MPLBACKEND", "PYTHONWARNINGS", "FORCE_COLOR", "NO_COLOR", "CLICOLOR", "TTY_", "RANK", "WORLD_SIZE"
STEERING += ("SSL_CERT_",)
for variable in [name for name in os.environ if name.startswith(STEERING) or name.lower().endswith("_proxy")]:
    del os.environ[variable]
os.environ |= {"HF_HUB_OFFLINE": "1", "COLUMNS": "80"}  # no test asks the network; of a terminal, rich takes its width

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import huggingface_hub
import pytest

pytest.register_assert_rewrite("commands", "pictures_on_disk", "small_run")  # `python -O` leaves out other assertions

import small_run
import torch
from huggingface_hub import constants
from hypothesis import HealthCheck, settings
from matplotlib.figure import Figure
from pictures_on_disk import assert_legible, leave_undrawn
from stand_in import Hub

from lab import figures
from model import GPT2LM, GPT2Classifier, GPT2Config, load_classifier, load_lm
from model.layouts import config_to_hf

settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")
torch.set_num_threads(1)  # tiny tensors: several threads would wait for each other most of the time


class Reference(NamedTuple):
    """A random model of `transformers`, the folder it was saved to, and what our loader made of that folder."""

    hf: Any
    ours: Any
    folder: Path


@pytest.fixture(scope="session")
def tiny() -> GPT2Config:
    """Distinct sizes, mostly prime, so that swapped axes cannot pass; an epsilon that is not PyTorch's default."""
    sizes = dict(n_layer=3, n_head=5, n_embd=35, n_ctx=13, vocab_size=101)
    return GPT2Config(**sizes, layer_norm_epsilon=3e-3, dropout=0.0, attn_dropout=0.0)


@pytest.fixture(scope="session")
def tiny_neo(tiny: GPT2Config) -> GPT2Config:
    """The same shape as a GPT-Neo, whose layer 1 sees five keys; its context is more than three windows long."""
    return replace(tiny, n_ctx=17, scale_scores=False, qkv_bias=False, windows=(0, 5, 0))


def randomise(hf: torch.nn.Module) -> None:
    """Biases start at 0 and LayerNorm weights at 1, where a swapped one would not be seen: make them all different."""
    for name, parameter in hf.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter, std=0.3)
        elif "ln_" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)


@pytest.fixture(scope="session")
def reference(
    tiny: GPT2Config, tiny_neo: GPT2Config, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Reference]:
    """Build a random HF model of a tiny shape: reference("GPT2LMHeadModel", seed=0, **config)."""
    import transformers

    def build(architecture: str, seed: int = 0, **config: Any) -> Reference:
        torch.manual_seed(seed)
        shape = tiny_neo if architecture.startswith("GPTNeo") else tiny
        settings = config_to_hf(shape) | {"initializer_range": 0.25, "pad_token_id": 0, "num_labels": 4} | config
        settings.pop("architectures")
        hf_config = transformers.AutoConfig.for_model(**settings, attn_implementation="eager")
        hf = getattr(transformers, architecture)(hf_config).eval()
        randomise(hf)
        folder = tmp_path_factory.mktemp(architecture)
        hf.save_pretrained(folder)
        load = load_classifier if "Classification" in architecture else load_lm
        return Reference(hf, load(folder), folder)

    return build


@pytest.fixture(scope="session")
def lm_reference(reference: Callable[..., Reference]) -> Reference:
    return reference("GPT2LMHeadModel")


@pytest.fixture(scope="session")
def clf_reference(reference: Callable[..., Reference]) -> Reference:
    return reference("GPT2ForSequenceClassification")


@pytest.fixture(scope="session")
def neo_lm_reference(reference: Callable[..., Reference]) -> Reference:
    return reference("GPTNeoForCausalLM")


@pytest.fixture(scope="session")
def neo_clf_reference(reference: Callable[..., Reference]) -> Reference:
    return reference("GPTNeoForSequenceClassification")


@pytest.fixture(scope="session", params=["clf_reference", "neo_clf_reference"])
def each_clf(request: pytest.FixtureRequest) -> Reference:
    """A GPT-2, and a GPT-Neo whose layer 1 sees fewer tokens than most texts of the tests have."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session", params=["lm_reference", "neo_lm_reference"])
def each_lm(request: pytest.FixtureRequest) -> Reference:
    return request.getfixturevalue(request.param)


@pytest.fixture
def lm(lm_reference: Reference) -> GPT2LM:
    """A language model with random weights that a test may change."""
    return load_lm(lm_reference.folder)


@pytest.fixture
def clf(clf_reference: Reference) -> GPT2Classifier:
    """A classifier with random weights that a test may change."""
    return load_classifier(clf_reference.folder)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A stand-in for the hub, asked by this process with an empty cache, and again without a pause where it fails."""
    hub = Hub()
    settings = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_TELEMETRY": True,  # which makes a request of its own
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_TOKEN_PATH": str(tmp_path / "token"),
        "HF_HUB_ETAG_TIMEOUT": 60,  # seconds: a busy machine is no hub that hangs
        "HF_HUB_DOWNLOAD_TIMEOUT": 60,
        "DOWNLOAD_CHUNK_SIZE": 1000,  # bytes: what a broken connection leaves of a tiny file is kept
    }
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for module in ("huggingface_hub.file_download", "huggingface_hub.utils._http"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(sleep=lambda seconds: None))
    huggingface_hub.close_session()
    yield hub
    huggingface_hub.close_session()
    hub.close()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a run of a tiny network."""
    here = tmp_path_factory.mktemp("trained")
    small_run.train_in(here)
    return here


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in, without any data of nltk."""
    shutil.copytree(trained, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setattr("nltk.data.path", [str(tmp_path / "nothing")])
    return tmp_path / "copy"


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training alone: metrics, baselines and pictures take longer than a tiny training."""
    monkeypatch.setattr(small_run.train, "measure", lambda run, corpus, texts, device: "")


@pytest.fixture
def empty_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_undrawn(monkeypatch)


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that would be saved."""
    figures_saved: list[Any] = []

    def note(figure: Figure, path: Path, **settings: Any) -> None:
        figures_saved.append(figure)
        path.touch()

    leave_undrawn(monkeypatch)
    monkeypatch.setattr(Figure, "savefig", note)
    return figures_saved


POLICY = {  # Content-Security-Policy
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data: blob:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'self'",
}


def _check_headers(answer) -> None:
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


@pytest.fixture
def check_headers():
    """Check the headers of an answer: they bind the browser, and let no other site read."""
    return _check_headers


@pytest.fixture
def check_refusal():
    """Check that an answer refuses, with this status if it is given, in one line of JSON; return the line."""

    def check(answer, status: int | None = None) -> str:
        _check_headers(answer)
        assert 400 <= answer.status_code < 500
        assert status in (None, answer.status_code)
        assert answer.headers["content-type"] == "application/json"
        assert "\n" not in answer.text
        [(name, line)] = answer.json().items()
        assert name == "error"
        assert line.isprintable()
        assert 0 < len(line) <= 3000
        assert "Traceback" not in line
        return line

    return check


@pytest.fixture
def legible(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Every picture that is saved is looked at; returns the figures by the names of their files."""
    save, seen = figures.save, {}

    def save_legible(figure: Figure, path: Path) -> None:
        save(figure, path)
        if path.suffix == ".png":  # the other has the same layout
            assert_legible(figure, path.name)
        seen[path.name] = figure

    monkeypatch.setattr(figures, "save", save_legible)
    return seen
