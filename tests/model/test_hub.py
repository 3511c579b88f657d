"""Weights from the hub: downloaded once, always checked, and nothing broken kept when hub or network misbehave."""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub
import pytest
import torch
from commands import line_of
from huggingface_hub import constants, errors, hf_hub_download, snapshot_download, try_to_load_from_cache
from stand_in import COMMIT
from tiny import difference, real, texts

import model.checkpoint
import model.names
from model import GPT2LM, GPT2Config, InputError, Tokenizer, load_classifier, load_lm
from model import hub as client
from model.hub_problems import hide_password, problem
from model.layouts import choose_layout, config_to_hf
from model.names import EMBEDDED, WEIGHTS
from model.weights import check_fit, list_tensors

ROOT = Path(__file__).parent.parent.parent
TEXTS = texts(7, 11)
FILES = ("config.json", WEIGHTS, "vocab.json", "merges.txt")
PUBLISHED = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
    "gpt-neo-125m": "EleutherAI/gpt-neo-125m",
    "gpt-neo-1.3B": "EleutherAI/gpt-neo-1.3B",
    "gpt-neo-2.7B": "EleutherAI/gpt-neo-2.7B",
}
OFFICIAL = "607a30d783dfa663caf39e06633721c8d4cfcd7e"  # the revision of gpt2
SOMEONE = "someone/some-gpt2"
LABELS = ("sadness", "joy", "love", "anger")


@pytest.fixture
def someone(hub, lm_reference, tmp_path):
    """Publish a language model, with files that nobody needs, as SOMEONE's; return its folder."""
    folder = shutil.copytree(lm_reference.folder, tmp_path / "someone")
    for name in ("pytorch_model.bin", "onnx/model.safetensors", "README.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("not needed")
    hub.repositories["model", SOMEONE] = folder
    return folder


@pytest.fixture
def published(hub, someone, monkeypatch):
    """Publish SOMEONE's folder under every published name, its files as the official ones of gpt2; return it."""
    for name in ("vocab.json", "merges.txt"):
        (someone / name).write_text(f"the {name} of nobody")
    for name, repository in PUBLISHED.items():
        hub.repositories["model", repository] = someone
        hub.commits[repository] = OFFICIAL if name == "gpt2" else COMMIT
    pins = {name: (None, hashlib.sha256((someone / name).read_bytes()).hexdigest()) for name in FILES[1:]}
    monkeypatch.setattr(model.names, "OFFICIAL", pins)
    return someone


def same(loaded, reference) -> bool:
    return torch.equal(loaded(*TEXTS), reference.ours(*TEXTS))


def storage(repository: str = SOMEONE) -> Path:
    return Path(constants.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}")


def blob_of(path: Path) -> Path:
    """Return where the cache keeps the content of a large file."""
    return storage() / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()


def refusal(name: str = SOMEONE) -> str:
    return line_of(load_lm, name)


def nothing_kept() -> bool:
    """Return whether the cache holds no weights, whole or in part, and calls no commit complete."""
    large = [path for path in (storage() / "blobs").glob("*") if len(path.name) >= 64]
    return not large and not list(storage().glob(f"snapshots/*/{WEIGHTS}")) and not (storage() / "refs").exists()


def ranges(hub) -> list[str | None]:
    return [request.range for request in hub.asked(WEIGHTS) if request.method == "GET"]


# Each name is downloaded once, to where other programs look for it.


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_name_is_downloaded_from_its_repository_and_only_once(hub, published, lm_reference, name):
    repository, commit = PUBLISHED[name], OFFICIAL if name == "gpt2" else COMMIT
    assert same(load_lm(name), lm_reference)
    api, *files = hub.asked()
    assert api.path == f"/api/models/{repository}" + (f"/revision/{OFFICIAL}" if name == "gpt2" else "")
    sent = [request.path for request in files if request.method == "GET"]
    assert sorted(sent) == sorted(f"/{repository}/resolve/{commit}/{file}" for file in FILES)
    hub.requests.clear()
    assert same(load_lm(name), lm_reference)
    assert hub.requests == []


def test_a_cached_model_is_used_though_the_hub_has_a_newer_one(hub, someone, lm_reference):
    load_lm(SOMEONE)
    hub.commits[SOMEONE] = "1" * 40
    (someone / WEIGHTS).write_bytes(b"newer")
    assert same(load_lm(SOMEONE), lm_reference)


def test_other_programs_find_our_downloads(hub, someone, lm_reference):
    import transformers

    load_lm(SOMEONE)
    hub.requests.clear()
    path = hf_hub_download(SOMEONE, WEIGHTS, local_files_only=True)
    assert try_to_load_from_cache(SOMEONE, WEIGHTS) == path
    assert Path(path).read_bytes() == (someone / WEIGHTS).read_bytes()
    assert snapshot_download(SOMEONE, local_files_only=True) == str(Path(path).parent)
    where = {"local_files_only": True, "cache_dir": constants.HF_HUB_CACHE}  # read by transformers at import
    hf = transformers.AutoModelForCausalLM.from_pretrained(SOMEONE, **where)
    with torch.no_grad():
        assert difference(hf.eval()(TEXTS[0]).logits, lm_reference.hf(TEXTS[0]).logits) < 1e-6
    assert hub.requests == []


def one_by_one(repository, revision):
    for name in FILES:
        hf_hub_download(repository, name, revision=revision)


@pytest.mark.parametrize("fetch", [one_by_one, lambda *which: snapshot_download(which[0], revision=which[1])])
@pytest.mark.parametrize("name", ["gpt2", "distilgpt2"])
def test_downloads_of_other_programs_are_used_without_asking(hub, published, lm_reference, caplog, name, fetch):
    fetch(PUBLISHED[name], OFFICIAL if name == "gpt2" else None)
    hub.requests.clear()
    assert same(load_lm(name), lm_reference)
    assert hub.requests == []
    assert caplog.records == []


def test_an_incomplete_download_of_another_program_is_completed(hub, someone, lm_reference):
    hf_hub_download(SOMEONE, "config.json")
    hub.sent.clear()
    assert same(load_lm(SOMEONE), lm_reference)
    assert set(hub.sent) == {WEIGHTS}


def test_a_checked_file_is_loaded_without_a_warning_and_any_other_with_one(hub, someone, caplog):
    load_lm(SOMEONE)
    load_lm(SOMEONE)
    assert caplog.records == []
    load_lm(someone)
    assert "no SHA-256 to check" in caplog.text


def test_a_link_to_another_store_is_neither_checked_nor_removed(lm_reference, tmp_path, caplog):
    """Its name may be a hash of another kind."""
    folder = shutil.copytree(lm_reference.folder, tmp_path / "folder")
    kept = (tmp_path / "store" / hashlib.sha1((folder / WEIGHTS).read_bytes()).hexdigest()).absolute()
    kept.parent.mkdir()
    (folder / WEIGHTS).rename(kept)
    (folder / WEIGHTS).symlink_to(kept)
    assert same(load_lm(folder), lm_reference)
    assert "no SHA-256 to check" in caplog.text
    assert kept.exists()


# The official gpt2 is checked against its published hashes.


@pytest.mark.parametrize("name", FILES[1:])
def test_other_bytes_do_not_pass_for_the_official_gpt2(published, name):
    expected = model.names.OFFICIAL[name][1]
    rewritten = bytearray((published / name).read_bytes())
    rewritten[-1] ^= 1
    (published / name).write_bytes(rewritten)
    got = hashlib.sha256((published / name).read_bytes()).hexdigest()
    for _ in range(2):
        assert f"{name} is not the official one: expected SHA-256 {expected}, got {got}" in refusal("gpt2")
    load_lm("gpt2-medium")  # has no published hashes


def test_the_official_size_counts(published, monkeypatch):
    size, (_, sha256) = (published / WEIGHTS).stat().st_size, model.names.OFFICIAL[WEIGHTS]
    monkeypatch.setitem(model.names.OFFICIAL, WEIGHTS, (size, sha256))
    load_lm("gpt2")
    monkeypatch.setitem(model.names.OFFICIAL, WEIGHTS, (size + 1, sha256))
    assert "not the official one" in refusal("gpt2")


# Connections that break.


def test_a_download_that_broke_once_resumes(hub, someone, lm_reference):
    hub.misbehave(WEIGHTS, times=1, drop=50_500)
    assert same(load_lm(SOMEONE), lm_reference)
    assert ranges(hub) == [None, "bytes=50000-"]
    assert hub.sent[WEIGHTS] == (someone / WEIGHTS).stat().st_size + 500


@pytest.mark.parametrize("fault", [{"drop": 50_500}, {"reset": 50_500}, {"end": 50_500}, {"html": True}], ids=str)
def test_a_download_that_keeps_breaking_is_one_line_and_leaves_nothing(hub, someone, lm_reference, fault):
    hub.misbehave(WEIGHTS, **fault)
    assert f"{WEIGHTS} did not arrive" in refusal()
    assert nothing_kept()
    hub.behave()
    assert same(load_lm(SOMEONE), lm_reference)


# Content that differs from the hub's listing.


@pytest.mark.parametrize(("at", "links"), [(1, True), (100_000, False), (200_000, True)])
def test_a_flipped_byte_is_noticed_and_the_file_not_kept(hub, someone, lm_reference, monkeypatch, at, links):
    monkeypatch.setattr("huggingface_hub.file_download.are_symlinks_supported", lambda folder: links)
    hub.misbehave(WEIGHTS, times=1, flip=at)
    assert f"{WEIGHTS} arrived damaged: its hash is not {blob_of(someone / WEIGHTS).name}" in refusal()
    assert nothing_kept()
    assert same(load_lm(SOMEONE), lm_reference)
    assert ranges(hub) == [None, None]


# The hub refuses, or does not answer.


@pytest.mark.parametrize(
    ("where", "fault", "said"),
    [("api", {"error": "RepoNotFound"}, "has none that you may see; check the name, or `hf auth login`"),
     ("api", {"error": "GatedRepo"}, "ask for access on its page there, then `hf auth login`"),
     ("api", {"error": "RevisionNotFound"}, "does not have this revision; check HF_ENDPOINT"),
     ("api", {"status": 401}, "`hf auth login`"),
     ("api", {"status": 403}, "answered 403"),
     ("api", {"status": 429}, "answered 429; try again later"),
     ("api", {"status": 500}, "answered 500; try again later"),
     ("api", {"status": 503}, "answered 503; try again later"),
     ("api", {"html": True}, "does not answer as the hub does; check your network, HF_ENDPOINT and HF_TOKEN"),
     ("HEAD config.json", {"status": 503}, "config.json did not arrive: .* answered 503; try again later"),
     ("HEAD config.json", {"error": "GatedRepo"}, "config.json did not arrive: .* ask for access on its page there"),
     ("HEAD config.json", {"html": True}, "config.json did not arrive: .* not seem to be served by a Hugging Face Hub"),
     (WEIGHTS, {"error": "EntryNotFound"}, f"{WEIGHTS} did not arrive: .* answered 404"),
     (WEIGHTS, {"error": "GatedRepo"}, "ask for access on its page there, then `hf auth login`"),
     (WEIGHTS, {"status": 401}, "`hf auth login`"),
     (WEIGHTS, {"status": 429}, "answered 429; try again later"),
     (WEIGHTS, {"status": 500}, "answered 500; try again later"),
     (WEIGHTS, {"status": 503}, "answered 503; try again later")],
    ids=str,
)  # fmt: skip
def test_a_refusal_says_what_to_do(hub, someone, lm_reference, where, fault, said):
    hub.misbehave(where, **fault)
    message = refusal()
    assert re.search(said, message), message
    assert hub.url in message
    assert nothing_kept()
    hub.behave()
    assert same(load_lm(SOMEONE), lm_reference)


@pytest.fixture
def impatient(hub, monkeypatch):
    """Shorten all timeouts; afterwards, check that nothing hung, and that no thread keeps the program alive."""
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)  # huggingface_hub tries six times
    before, start = set(threading.enumerate()), time.monotonic()
    yield
    assert time.monotonic() - start < 60  # far more than a busy machine takes; a hang would be endless
    assert [thread for thread in set(threading.enumerate()) - before if not thread.daemon] == []


@pytest.mark.parametrize("where", ["api", "HEAD config.json", "config.json", WEIGHTS])
def test_a_silent_hub_is_one_line_within_seconds(hub, someone, impatient, where):
    hub.misbehave(where, hang=True)
    assert ("no answer within 1 seconds" if where == "api" else "timed out") in refusal()
    assert nothing_kept()


def test_a_name_lookup_that_hangs_is_one_line_within_seconds(hub, impatient, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **kind: hub.closing.wait())
    assert "no answer within 1 seconds; check your network" in refusal()


def test_a_closed_port_is_one_line_at_once(hub, impatient, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    assert f"the connection to http://127.0.0.1:{port} failed" in refusal()


def test_an_address_that_accepts_no_connection_is_one_line_within_seconds(hub, impatient, monkeypatch):
    """Nobody accepts connections, and two others fill the queue, so that ours gets no answer at all."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as server,
        socket.socket() as first,
        socket.socket() as next_,
    ):
        for waiting in (first, next_):
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert "no answer within 1 seconds" in refusal()


@pytest.mark.parametrize(
    "endpoint",
    ["huggingface", "ftp://127.0.0.1", "http://no.such.host.invalid", "http://host:notaport", "http://[::1"],
)
def test_an_endpoint_that_is_no_address_is_one_line(hub, monkeypatch, endpoint):
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    assert re.search(
        f"{re.escape(endpoint)} (does not answer as the hub does|failed .*); check your network", refusal()
    )


def first_file(**changes):
    return lambda info: info["siblings"][0].update(changes)


@pytest.mark.parametrize(
    "edit",
    [lambda info: info.pop("siblings"), lambda info: info.update(sha=None), lambda info: info.update(sha="../../main"),
     first_file(blobId=None), first_file(blobId="../../evil"), first_file(blobId="A" * 40), first_file(lfs="no"),
     first_file(rfilename=None), first_file(rfilename="../../../evil"), first_file(rfilename="/tmp/evil"),
     first_file(rfilename="D:evil"),
     first_file(rfilename="a/../../evil"), first_file(rfilename="a/evil\0/b"),
     lambda info: info.update(lastModified=5)],
)  # fmt: skip
def test_a_listing_that_no_hub_would_send_is_refused_before_anything_is_written(hub, someone, tmp_path, edit):
    before = sorted(tmp_path.rglob("*"))
    hub.misbehave("api", edit=edit)
    with pytest.raises(InputError, match="does not answer as the hub does"):
        client.fetch("model", SOMEONE, list)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_small_file_with_another_hash_than_listed_is_noticed(hub, someone):
    hub.misbehave("api", edit=first_file(blobId="0" * 40))
    with pytest.raises(InputError, match=f"arrived damaged: its hash is not {'0' * 40}, as the hub lists it"):
        client.fetch("model", SOMEONE, list)


def test_a_full_disk_is_reported_as_such_and_leaves_no_weights(hub, someone, lm_reference, monkeypatch):
    def write_some(url, file, **settings):
        file.write(bytes(1000))
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.http_get", write_some)
        with pytest.raises(OSError, match="No space left") as caught:
            load_lm(SOMEONE)
    assert not isinstance(caught.value, InputError)
    assert nothing_kept()
    assert same(load_lm(SOMEONE), lm_reference)


# Files that were damaged in the cache.


@pytest.mark.parametrize("again", [False, True])
def test_a_file_that_was_damaged_in_the_cache_is_refused_until_it_is_removed(hub, someone, lm_reference, again):
    """`again`: as a new process finds it, and the time of the last change does not show the damage."""
    load_lm(SOMEONE)
    path = storage() / "snapshots" / COMMIT / WEIGHTS
    blob, status = path.resolve(), path.stat()
    with blob.open("r+b") as file:
        file.seek(status.st_size // 2)
        byte = file.read(1)[0]
        file.seek(status.st_size // 2)
        file.write(bytes([byte ^ 1]))
    if again:
        os.utime(blob, ns=(status.st_atime_ns, status.st_mtime_ns))
        client._content_hash.cache_clear()
    assert f"{path} is damaged: its SHA-256 is not {blob.name}; remove {blob} and try again" in refusal()
    blob.unlink()
    hub.sent.clear()
    assert same(load_lm(SOMEONE), lm_reference)
    assert set(hub.sent) == {WEIGHTS}


@pytest.mark.parametrize("damage", [b"", b"\xff", b"../snapshots"])
def test_a_damaged_reference_to_the_newest_commit_is_repaired(hub, someone, lm_reference, damage):
    load_lm(SOMEONE)
    (storage() / "refs" / "main").write_bytes(damage)
    assert same(load_lm(SOMEONE), lm_reference)
    assert (storage() / "refs" / "main").read_text() == COMMIT


def test_a_small_file_that_a_mirror_named_otherwise_is_used(hub, someone, lm_reference):
    """Some mirrors name small files by a hash of their own, which is no sign of damage."""
    load_lm(SOMEONE)
    path = storage() / "snapshots" / COMMIT / "config.json"
    other = path.resolve().with_name("0" * 40)
    path.resolve().rename(other)
    path.unlink()
    path.symlink_to(os.path.relpath(other, path.parent))
    hub.requests.clear()
    assert same(load_lm(SOMEONE), lm_reference)
    assert not hub.requests


def test_a_copy_without_links_is_not_downloaded_again(hub, someone, lm_reference):
    """On a file system without links, the cache has plain files in the snapshot and no blobs."""
    load_lm(SOMEONE)
    folder = storage() / "snapshots" / COMMIT
    for path in list(folder.iterdir()):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    shutil.rmtree(storage() / "blobs")
    (folder / "config.json").unlink()
    hub.sent.clear()
    assert same(load_lm(SOMEONE), lm_reference)
    assert set(hub.sent) == {"config.json"}


def test_gpt2_is_found_under_its_short_name_too(hub, published, lm_reference):
    """transformers' from_pretrained("gpt2") fills models--gpt2."""
    load_lm("gpt2")
    canonical = Path(constants.HF_HUB_CACHE, "models--openai-community--gpt2")
    canonical.rename(canonical.with_name("models--gpt2"))
    hub.requests.clear()
    assert same(load_lm("gpt2"), lm_reference)
    assert not hub.requests


def test_a_cache_that_cannot_be_written_to_is_one_line(hub, someone, monkeypatch):
    def refuse(*arguments, **settings):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "mkdir", refuse)
    assert f"not in the cache, and {constants.HF_HUB_CACHE} cannot be written to; set HF_HOME" in refusal()


def test_a_model_of_another_kind_is_refused_by_its_config_alone(hub, someone):
    config = json.loads((someone / "config.json").read_text())
    (someone / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    with pytest.raises(InputError, match="does not implement model_type = 'llama'"):
        model.checkpoint.read_config(SOMEONE)
    assert set(hub.sent) == {"config.json"}


def test_links_without_their_content_are_repaired(hub, someone, lm_reference):
    load_lm(SOMEONE)
    shutil.rmtree(storage() / "blobs")
    assert same(load_lm(SOMEONE), lm_reference)


# Several downloads at once, and none.


def test_two_threads_download_a_file_once(hub, someone, lm_reference):
    with ThreadPoolExecutor(2) as pool:
        assert all(same(loaded, lm_reference) for loaded in pool.map(load_lm, [SOMEONE] * 2))
    assert hub.sent[WEIGHTS] == (someone / WEIGHTS).stat().st_size


def test_offline_the_cache_is_all_there_is(hub, someone, lm_reference, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "not in the cache, and HF_HUB_OFFLINE forbids asking the hub; unset it" in refusal()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    load_lm(SOMEONE)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert same(load_lm(SOMEONE), lm_reference)
    assert hub.requests == []


# Somebody else's classifier.


@pytest.fixture(scope="session")
def classifier(reference, tmp_path_factory):
    """Build a classifier as fine-tuned with `transformers`, with labels and GPT-2's tokenizer files."""
    id2label = dict(enumerate(LABELS))
    built = reference(
        "GPT2ForSequenceClassification", seed=5, id2label=id2label, label2id={name: i for i, name in id2label.items()}
    )
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(EMBEDDED / name, built.folder)
    return built


def test_somebody_elses_classifier_has_its_labels_and_logits(hub, classifier):
    hub.repositories["model", "someone/emotion-gpt2"] = classifier.folder
    loaded = load_classifier("someone/emotion-gpt2")
    assert loaded.labels == LABELS
    with torch.no_grad():
        expected = classifier.hf(TEXTS[0], attention_mask=real(*TEXTS).long()).logits
    assert difference(loaded(*TEXTS), expected) < 1e-5
    tokenizer = Tokenizer.load("someone/emotion-gpt2")
    assert tokenizer.encode("i feel so happy 🙂") == Tokenizer.load("gpt2-mini").encode("i feel so happy 🙂")
    assert sorted(hub.sent) == sorted(FILES)


def test_a_tokenizer_in_one_file_is_enough(hub, classifier, tmp_path):
    import transformers

    folder = shutil.copytree(classifier.folder, tmp_path / "one")
    transformers.GPT2Tokenizer.from_pretrained(EMBEDDED).save_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    hub.repositories["model", SOMEONE] = folder
    assert Tokenizer.load(SOMEONE).encode("so happy") == Tokenizer.load("gpt2-mini").encode("so happy")
    assert "tokenizer.json" in hub.sent


def test_a_tokenizer_is_added_to_weights_that_another_program_downloaded(hub, classifier):
    hub.repositories["model", SOMEONE] = classifier.folder
    for name in ("config.json", WEIGHTS):
        hf_hub_download(SOMEONE, name)
    assert len(Tokenizer.load(SOMEONE)) == 50257


def test_a_repository_without_a_tokenizer_says_so(hub, someone):
    load_lm(SOMEONE)
    with pytest.raises(InputError, match=r"expected vocab.json and merges.txt, there are .*config.json"):
        Tokenizer.load(SOMEONE)


def test_the_layout_of_tinystories_is_read_from_safetensors_but_not_from_a_pickle(hub, reference, tmp_path):
    shape = dict(num_layers=8, attention_types=[[["global", "local"], 4]], num_heads=2, hidden_size=8, vocab_size=101)
    hf, _, folder = reference("GPTNeoForCausalLM", **shape, window_size=3, max_position_embeddings=7)
    hub.repositories["model", SOMEONE] = tmp_path / "pickled"
    shutil.copytree(folder, tmp_path / "pickled", ignore=shutil.ignore_patterns(WEIGHTS))
    torch.save(hf.state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    assert "pytorch_model.bin; a pickle is never opened here" in refusal()
    hub.repositories["model", SOMEONE] = folder
    lm = load_lm(SOMEONE)
    assert lm.config.windows == (0, 3) * 4
    with torch.no_grad():
        assert difference(lm(TEXTS[0][:, :7]), hf(TEXTS[0][:, :7]).logits) < 1e-5


@pytest.mark.parametrize(
    ("files", "said"),
    [(("config.json", "pytorch_model.bin"), "there are config.json, pytorch_model.bin; a pickle is never opened here"),
     (("adapter_config.json", "adapter_model.safetensors"), "there are adapter_config.json, adapter_model.safetensors"),
     ((), "there are no files")],
)  # fmt: skip
def test_a_repository_that_is_no_checkpoint_is_refused_before_any_download(hub, tmp_path, files, said):
    (tmp_path / "folder").mkdir()
    for name in files:
        (tmp_path / "folder" / name).write_text("content")
    hub.repositories["model", SOMEONE] = tmp_path / "folder"
    assert f"expected config.json and {WEIGHTS}, {said}" in refusal()
    assert not hub.sent
    assert not Path(constants.HF_HUB_CACHE).exists()


def test_a_folder_goes_before_the_hub(hub, someone, clf_reference, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(clf_reference.folder, SOMEONE)
    assert load_classifier(SOMEONE).labels == clf_reference.ours.labels
    assert hub.requests == []


def test_a_mistyped_folder_is_reported_as_neither_a_folder_nor_on_the_hub(hub):
    assert re.search("check the name.*there is no folder runs/nothing either", refusal("runs/nothing"))


# Programs of their own, steered by environment variables.


LOAD = f"from model import load_lm; print(*[p.double().sum().item() for p in load_lm({SOMEONE!r}).parameters()])"


def start(code: str, hub, home: Path, **environment: str) -> subprocess.Popen:
    """Start a program with the stand-in as its hub and `home` as its cache."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    environment = kept | quiet | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home)} | environment
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, **pipes)


def sums(reference) -> str:
    return " ".join(str(p.double().sum().item()) for p in reference.ours.parameters())


@pytest.mark.slow
def test_mirror_home_token_and_offline_switch_are_those_of_huggingface_hub(hub, someone, lm_reference, tmp_path):
    out, _ = start(LOAD, hub, tmp_path / "home", HF_TOKEN="hf_secret").communicate(timeout=600)
    assert out.strip() == sums(lm_reference)
    blob = tmp_path / "home" / "hub" / storage().name / "blobs" / blob_of(someone / WEIGHTS).name
    assert blob.read_bytes() == (someone / WEIGHTS).read_bytes()
    assert {request.token for request in hub.asked()} == {"Bearer hf_secret"}
    elsewhere = [request for request in hub.requests if request not in hub.asked()]
    assert [request.token for request in elsewhere] == [None]  # the other host that serves the weights
    hub.requests.clear()
    out, _ = start(LOAD, hub, tmp_path / "home", HF_HUB_OFFLINE="1").communicate(timeout=600)
    assert out.strip() == sums(lm_reference)
    assert hub.requests == []


@pytest.mark.slow
def test_two_processes_download_a_file_once(hub, someone, lm_reference, tmp_path):
    both = [start(LOAD, hub, tmp_path / "home") for _ in range(2)]
    assert [process.communicate(timeout=600)[0].strip() for process in both] == [sums(lm_reference)] * 2
    assert hub.sent[WEIGHTS] == (someone / WEIGHTS).stat().st_size


def test_a_program_ends_although_the_hub_is_silent(hub, someone, tmp_path):
    hub.misbehave("api", hang=True)
    _, err = start(LOAD, hub, tmp_path / "home", HF_HUB_ETAG_TIMEOUT="1").communicate(timeout=600)
    assert "no answer within 1 seconds" in err


# What the environment says of proxies, certificates and tokens.

SOCKS = "a SOCKS proxy needs another package; `.venv/bin/pip install socksio`, or unset it"
SCHEMES = "expected http://, https:// or socks5://; correct it, or unset it"
ADDRESS = "expected http://host:port; correct it, or unset it"


@pytest.fixture
def asked_anew(hub):
    """The client reads the environment when it is made."""
    yield
    huggingface_hub.close_session()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9", f"ALL_PROXY=socks5://127.0.0.1:9: {SOCKS}"),
        ("all_proxy", "socks5h://me:pass@127.0.0.1:9/", f"all_proxy=socks5h://me:***@127.0.0.1:9/: {SOCKS}"),
        ("ALL_PROXY", "socks://127.0.0.1:9/", f"ALL_PROXY=socks://127.0.0.1:9/: {SCHEMES}"),  # GNOME writes so
        ("HTTPS_PROXY", "ftp://127.0.0.1:9", f"HTTPS_PROXY=ftp://127.0.0.1:9: {SCHEMES}"),
        ("http_proxy", "http://127.0.0.1:port", f"http_proxy=http://127.0.0.1:port: {ADDRESS}"),
        ("HTTP_PROXY", "http://[::1", f"HTTP_PROXY=http://[::1: {ADDRESS}"),
        ("HTTP_PROXY", "http://", f"HTTP_PROXY=http://: {ADDRESS}"),
        ("HTTP_PROXY", "http://me:pass@127.0.0.1:0", f"HTTP_PROXY=http://me:***@127.0.0.1:0: {ADDRESS}"),
        ("SSL_CERT_FILE", "/nowhere/ca.pem", "SSL_CERT_FILE=/nowhere/ca.pem holds no certificates (No such file or"),
        ("SSL_CERT_FILE", __file__, f"SSL_CERT_FILE={__file__} holds no certificates ([X509: NO_CERTIFICATE"),
        ("SSL_CERT_FILE", str(ROOT), f"SSL_CERT_FILE={ROOT} holds no certificates (Is a directory)"),
    ],
)
def test_what_the_environment_has_wrong_is_named(
    hub, someone, asked_anew, lm_reference, monkeypatch, variable, value, said
):
    with monkeypatch.context() as patch:
        patch.setenv(variable, value)
        huggingface_hub.close_session()
        message = refusal()
    assert f"not in the cache, and {said}" in message
    huggingface_hub.close_session()
    assert same(load_lm(SOMEONE), lm_reference)


@pytest.mark.parametrize("token", ["hf_tokén", "hf_“token”"])
def test_a_token_with_other_characters_than_tokens_have_is_named_and_not_shown(hub, someone, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    message = refusal()
    assert f"HF_TOKEN, or {constants.HF_TOKEN_PATH}, has characters that no token has; copy it again" in message
    assert "hf_" not in message


def test_both_variables_that_hold_a_proxy_are_named(hub, someone, asked_anew, monkeypatch):
    for name in ("ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9")
    assert "ALL_PROXY and all_proxy=socks5://127.0.0.1:9: a SOCKS" in refusal()


def test_a_proxy_that_does_not_answer_is_named_without_its_password(hub, someone, asked_anew, impatient, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("HTTP_PROXY", f"http://me:pass@127.0.0.1:{port}")
        huggingface_hub.close_session()
        assert f"no answer within 1 seconds through HTTP_PROXY=http://me:***@127.0.0.1:{port}; check" in refusal()
    huggingface_hub.close_session()
    message = refusal()
    assert f"the connection to {hub.url} through HTTP_PROXY=http://me:***@127.0.0.1:{port} failed" in message
    assert message.partition("; there")[0].endswith("; check that proxy")


@pytest.mark.parametrize("hosts", ["127.0.0.1,localhost", "*"])
def test_a_proxy_that_is_not_used_is_not_blamed(hub, someone, asked_anew, lm_reference, monkeypatch, hosts):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", hosts)
    hub.misbehave("api", status=503)
    assert "PROXY" not in refusal()
    hub.behave()
    assert same(load_lm(SOMEONE), lm_reference)


def test_a_broken_proxy_that_is_not_used_at_all_is_not_blamed(hub, someone, asked_anew, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "localhost, *")
    hub.misbehave("api", html=True)
    assert "does not answer as the hub does; check your network" in refusal()


@pytest.mark.parametrize(("variable", "value"), [("ALL_PROXY", "socks5://127.0.0.1:9"), ("SSL_CERT_FILE", "/nowhere")])
def test_a_cached_corpus_is_used_where_the_environment_keeps_the_hub_from_being_asked(
    hub, someone, asked_anew, monkeypatch, caplog, variable, value
):
    hub.repositories["dataset", SOMEONE] = someone
    first = client.fetch("dataset", SOMEONE, lambda names: ["config.json"])
    monkeypatch.setenv(variable, value)
    huggingface_hub.close_session()
    assert client.fetch("dataset", SOMEONE, lambda names: ["config.json"]) == first
    assert f"{variable}={value}" in caplog.text
    assert "Using its copy in the cache" in caplog.text


@pytest.fixture
def self_signed(hub, someone, asked_anew, monkeypatch):
    """The hub is asked by TLS, and its certificate is known to nobody."""
    pem = Path(__file__).with_name("self_signed.pem")  # made with openssl, for 127.0.0.1 and 100 years
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    hub.server.socket = context.wrap_socket(hub.server.socket, server_side=True)
    monkeypatch.setattr(hub.server, "handle_error", lambda *where: None)  # the client hangs up
    monkeypatch.setattr(constants, "ENDPOINT", hub.url.replace("http:", "https:"))
    template = constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    return pem


def test_a_certificate_that_is_not_trusted_is_one_line_that_says_how_to_trust_it(self_signed, monkeypatch):
    message = refusal()
    assert f"the certificate of {constants.ENDPOINT} is not trusted (self-signed certificate" in message
    assert "SSL_CERT_FILE must name a .pem file that has it" in message
    monkeypatch.setenv("SSL_CERT_DIR", "/nowhere")
    huggingface_hub.close_session()
    assert "SSL_CERT_DIR=/nowhere is no folder; unset it" in refusal()
    monkeypatch.setenv("SSL_CERT_DIR", str(ROOT))
    huggingface_hub.close_session()
    assert f"is not trusted by SSL_CERT_DIR={ROOT} (self-signed" in refusal()
    monkeypatch.setenv("SSL_CERT_FILE", str(self_signed))
    huggingface_hub.close_session()
    assert client.list_files("model", SOMEONE, None)[0] == COMMIT


@pytest.mark.parametrize("reason", ["certificate has expired", "certificate is not yet valid"])
def test_a_clock_that_may_be_wrong_is_thought_of(reason):
    error = errors.HTTPError(f"[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {reason} (_ssl.c:1000)")
    assert f"is not trusted ({reason} (_ssl.c:1000)); is the clock of this machine right?" in problem(error)


@pytest.mark.parametrize("home", ["file/in/it", "file"])
def test_a_home_of_the_cache_that_is_a_file_is_one_line(hub, someone, monkeypatch, tmp_path, home):
    (tmp_path / "file").write_text("notes")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / home))
    assert f"{tmp_path / home} cannot be written to; set HF_HOME" in refusal()
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / home / "token"))
    assert f"{tmp_path / home}/token cannot be read (Not a directory); set HF_HOME to another folder" in refusal()


def test_without_a_home_folder_nothing_is_kept_in_one_called_tilde(hub, someone, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "~/.cache/huggingface/hub")  # what os.path.expanduser leaves
    monkeypatch.setattr(Path, "home", lambda: 1 / 0)
    monkeypatch.setattr(Path, "expanduser", lambda path: 1 / 0)  # raises too
    assert "~/.cache/huggingface/hub: there is no HOME to keep files in; set HF_HOME" in refusal()
    assert not Path("~").exists()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://me:se:cr@et@host:80/x", "http://me:***@host:80/x"),
        ("me:secret@host", "me:***@host"),
        ("http://me@host:80", "http://me@host:80"),
        ("http://host:80", "http://host:80"),
        ("host:80", "host:80"),
    ],
)
def test_passwords_are_hidden(address, expected):
    assert hide_password(address) == expected


# The published sizes.


def official_layout(name: str) -> dict[str, torch.Size]:
    """Return the shapes in a published file by name, as `transformers` has them, with causal masks; GPT-2's names are
    without a prefix."""
    import transformers

    config = GPT2Config.preset(name)
    prefix, attn = ("", "attn") if config.qkv_bias else ("transformer.", "attn.attention")
    with torch.device("meta"):
        hf = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**config_to_hf(config)))
    masks = {
        f"h.{layer}.{attn}.bias": torch.Size([1, 1, config.n_ctx, config.n_ctx]) for layer in range(config.n_layer)
    }
    shapes = {key: tensor.shape for key, tensor in hf.state_dict().items()} | masks
    return {prefix + key: shape for key, shape in shapes.items()}


def write_empty(folder: Path, shapes: dict[str, torch.Size]) -> None:
    """Write a safetensors file with these tensors as one hole, which takes no space on the disk."""
    header, end = {}, 0
    for key, shape in shapes.items():
        start, end = end, end + 4 * shape.numel()
        header[key] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    content = json.dumps(header).encode()
    with (folder / WEIGHTS).open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        file.truncate(8 + len(content) + end)


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_published_size_takes_the_layout_of_its_file(name, tmp_path):
    config = GPT2Config.preset(name)
    with torch.device("meta"):
        ours = {key: tensor.shape for key, tensor in GPT2LM(config).state_dict().items()}
    wanted = {key: place.shape for key, place in choose_layout(config).places(ours).items()}
    shapes = official_layout(name)
    write_empty(tmp_path, shapes)
    tensors = list_tensors(tmp_path)
    check_fit(tmp_path, wanted, tensors, set())
    assert wanted.keys() < tensors.keys()
    assert {stored.key: stored.shape for stored in tensors.values()} == shapes


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_loading_never_holds_a_second_copy_of_the_weights(tmp_path):
    shapes = official_layout("distilgpt2")
    write_empty(tmp_path, shapes)
    (tmp_path / "config.json").write_text(json.dumps(config_to_hf(GPT2Config.preset("distilgpt2"))))
    code = f"""
from pathlib import Path
from model import load_lm
memory = lambda what: int(Path("/proc/self/status").read_text().split(what + ":")[1].split()[0]) * 1024
before = memory("VmRSS")
model = load_lm({str(tmp_path)!r})
print((memory("VmHWM") - before) / sum(4 * parameter.numel() for parameter in model.parameters()))
"""
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert 1 <= float(out.splitlines()[-1]) < 1.2
