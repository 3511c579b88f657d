"""The numbers of the page, against `transformers` with hooks, and each address against the others."""

import base64
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hooked import find_merge, find_projection, hooked, on_input, on_output, record

from experiments.explore import compute
from experiments.explore.experiment import read_experiment
from lab.fills import choose_donors
from model import GPT2LM, GPT2Config

TEXT = "i felt so happy 🦜 at work"
L, H, D, C = 3, 5, 7, 35
OTHER = "no, he is not mad"


NETWORKS = {
    "classifier": ("subject", "clf_network"),
    "language model": ("language_subject", "lm_network"),
    "GPT-Neo": ("neo_subject", "neo_network"),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    """A subject, and the same network of transformers."""
    subject, network = map(request.getfixturevalue, NETWORKS[request.param])
    return subject, network.hf


def read(hf, ids, hidden=(), filled=(), heads=None, mlps=None, **options):
    """What transformers computes of one text. heads, mlps: what these emit instead, (T, D) and (T, C), 0: nothing."""

    def put(value, columns):
        def change(x):
            x = x.clone()
            x[..., columns] = value
            return x

        return change

    blocks = hf.transformer.h
    handles = [
        on_input(find_merge(blocks[layer]), put(value, slice(head * D, (head + 1) * D)))
        for (layer, head), value in (heads or {}).items()
    ]
    handles += [
        on_output(hf.transformer.h[layer].mlp, put(value, slice(None))) for layer, value in (mlps or {}).items()
    ]
    x = hf.transformer.wte.weight[ids].clone()
    for position in filled:
        x[position] = hf.transformer.wte.weight.mean(dim=0)
    mask = torch.tensor([[i not in hidden for i in range(len(ids))]]).long()
    positions = torch.arange(len(ids))[None]  # a mask moves them otherwise
    with hooked(*handles), torch.no_grad():
        return hf(inputs_embeds=x[None], attention_mask=mask, position_ids=positions, **options)


def probabilities(hf, ids, **changes):
    """(K,), or (V,) of next tokens; those of several draws are averaged."""
    logits = read(hf, ids, **changes).logits
    return (logits[0] if logits.ndim == 2 else logits[0, -1]).double().softmax(dim=-1)


def close_to(got, expected):
    return (got - expected).abs().max() < 1e-5 * expected.max()


MIXES = {
    "nothing": {},
    "a head": {"heads": [[1, 3]]},
    "heads": {"heads": [[0, 0], [1, 4], [2, 2], [2, 3]]},
    "an MLP": {"mlps": [1]},
    "a layer": {"heads": [[0, h] for h in range(H)], "mlps": [0]},
    "everything": {"heads": [[layer, h] for layer in range(L) for h in range(H)], "mlps": [0, 1, 2]},
    "a hidden token": {"tokens": {"2": "hide"}},
    "the first token hidden": {"tokens": {"0": "hide", "1": "hide"}},
    "a filled token": {"tokens": {"3": "fill"}},
    "the last token filled": {"tokens": {"8": "fill"}},
    "a mix": {"heads": [[0, 3], [2, 1]], "mlps": [2], "tokens": {"0": "hide", "1": "fill", "4": "hide"}},
}


@pytest.mark.parametrize("name", MIXES)
def test_switches_equal_transformers(network, name):
    subject, hf = network
    body = {"text": TEXT, **MIXES[name]}
    experiment = read_experiment(body, subject)
    answer = compute.answer(subject, experiment)
    changes = {
        "heads": {tuple(head): 0 for head in body.get("heads", [])},
        "mlps": dict.fromkeys(body.get("mlps", []), 0),
        "hidden": [int(i) for i, removal in body.get("tokens", {}).items() if removal == "hide"],
        "filled": [int(i) for i, removal in body.get("tokens", {}).items() if removal == "fill"],
    }
    assert len(experiment.ids) == 9
    before, after = (probabilities(hf, list(experiment.ids), **each) for each in ({}, changes))
    assert close_to(answer.before, before)
    assert close_to(answer.after, after)
    assert name == "nothing" or not close_to(after, before)


@pytest.mark.parametrize("deleted", [[0], [8], [1, 4, 5], [0, 1, 2, 3, 4, 5, 6, 7]])
def test_without_a_token_the_text_is_the_shorter_one(network, deleted):
    subject, hf = network
    tokens = {str(i): "delete" for i in deleted}
    experiment = read_experiment({"text": TEXT, "tokens": tokens, "heads": [[1, 2]]}, subject)
    kept = [token for i, token in enumerate(experiment.ids) if i not in deleted]
    answer = compute.answer(subject, experiment)
    assert close_to(answer.before, probabilities(hf, list(experiment.ids)))
    assert close_to(answer.after, probabilities(hf, kept, heads={(1, 2): 0}))


def test_positions_move_up_after_a_deleted_token(network):
    subject, hf = network
    tokens = {"1": "delete", "3": "hide", "5": "fill"}
    experiment = read_experiment({"text": TEXT, "tokens": tokens}, subject)
    kept = [token for i, token in enumerate(experiment.ids) if i != 1]
    assert close_to(compute.answer(subject, experiment).after, probabilities(hf, kept, hidden=[2], filled=[4]))


def emit(hf, ids):
    """What heads and MLPs of transformers emit on a text: (L, T, H, D) and (L, T, C)."""
    records = record(hf, ids)
    z = torch.stack([z[0] for z in records["z"]]).unflatten(-1, (H, D))
    return z, torch.stack([mlp[0] for mlp in records["mlp"]])


def align(outputs, T):
    """(L, S, ...) of another text of S tokens -> (L, T, ...): the last tokens meet, and the first one repeats."""
    return outputs[:, [max(0, i + outputs.shape[1] - T) for i in range(T)]]


def average(hf, texts):
    """The mean over all tokens of these texts, (L, H, D) and (L, C)."""
    z, mlp = zip(*(emit(hf, ids) for ids in texts), strict=True)
    return torch.cat(z, dim=1).mean(dim=1), torch.cat(mlp, dim=1).mean(dim=1)


FILLS = [(kind, fill) for kind in NETWORKS for fill in ("mean", "resample", "text")]


@pytest.mark.parametrize(("network", "fill"), [*FILLS, ("classifier", "class_mean")], indirect=["network"])
@pytest.mark.parametrize("closed", [{"heads": [[0, 3], [1, 1]], "mlps": [2]}, {"heads": [[2, 4]]}, {"mlps": [0, 1]}])
def test_fills_equal_transformers(network, fill, closed):
    subject, hf = network
    body = {"text": TEXT, **closed, "fill": fill, "other": OTHER, "tokens": {"2": "delete", "4": "hide"}}
    experiment = read_experiment(body, subject)
    ids = [token for i, token in enumerate(experiment.ids) if i != 2]
    donors = subject.donors.sequences
    if fill == "mean":
        draws = [average(hf, donors)]
    elif fill == "class_mean":
        k = int(probabilities(hf, ids).argmax())
        draws = [average(hf, [donor for i, donor in enumerate(donors) if i % 4 != k])]
    elif fill == "text":
        draws = [emit(hf, subject.tokenizer.encode(OTHER))]
    else:
        draws = [emit(hf, donors[i]) for i in choose_donors([ids], donors, 0)[0]]
        assert len(draws) == 10
    readings = []
    for z, mlp in draws:
        if fill in ("text", "resample"):
            z, mlp = align(z, len(ids)), align(mlp, len(ids))
        heads = {(layer, head): z[layer, ..., head, :] for layer, head in closed.get("heads", [])}
        mlps = {layer: mlp[layer] for layer in closed.get("mlps", [])}
        readings.append(probabilities(hf, ids, hidden=[3], heads=heads, mlps=mlps))
    assert close_to(compute.answer(subject, experiment).after, sum(readings) / len(readings))


@pytest.mark.parametrize(("name", "fill"), [("client", "zero"), ("client", "resample"), ("language_client", "zero")])
def test_heads_equal_one_run_for_each_unit(request, name, fill):
    client = request.getfixturevalue(name)
    base = {"text": TEXT, "heads": [[0, 3], [2, 0]], "mlps": [1], "tokens": {"1": "hide", "5": "delete"}, "fill": fill}
    answer = client.post("/api/heads", json=base).json()
    assert answer["labels"] == client.post("/api/run", json=base).json()["labels"]
    assert np.shape(answer["heads"]) == (L, H, len(answer["labels"]))
    assert np.shape(answer["mlps"]) == (L, len(answer["labels"]))
    units = [(answer["heads"][layer][head], "heads", [layer, head]) for layer in range(L) for head in range(H)]
    units += [(answer["mlps"][layer], "mlps", layer) for layer in range(L)]
    for got, kind, unit in units if fill == "zero" else units[::7]:  # draws take long
        more = base[kind] if unit in base[kind] else [*base[kind], unit]
        run = client.post("/api/run", json=base | {kind: more}).json()
        expected = pick(run["labels"], run["after"], answer["labels"])
        assert pick(answer["labels"], got, run["labels"]) == pytest.approx(expected, abs=1e-5)


def test_a_unit_changes_the_prediction_also_to_a_token_that_is_not_shown(client, language_client):
    unseen = 0
    for each in (client, language_client):
        base = {"text": TEXT, "heads": [[0, 3]]}
        run, answer = (each.post(f"/api/{name}", json=base).json() for name in ("run", "heads"))
        changed, heads = answer["changed"], [divmod(number, H) for number in range(L * H)]
        cases = [(changed["mlps"][layer], {"mlps": [layer]}) for layer in range(L)]
        cases += [(changed["heads"][i][j], {"heads": [[0, 3], [i, j]]}) for i, j in heads if (i, j) != (0, 3)]
        for changes, more in cases:
            predicted = each.post("/api/run", json=base | more).json()["predicted"]
            assert changes == (predicted != run["predicted"])
            unseen += predicted not in answer["labels"]
    assert unseen


def pick(labels, values, others):
    """By label, the values of those labels that others have, too."""
    assert len(set(labels) & set(others)) >= 4
    return {label: value for label, value in zip(labels, values, strict=True) if label in others}


@pytest.mark.parametrize(
    ("n_heads", "n_mlps", "overlaps"), [(0, 0, 0), (0, 2, 20), (4, 1, 0), (7, 0, 0), (8, 0, 20), (15, 3, 20)]
)
def test_random_units_are_as_many_others_if_enough_are_left(client, subject, n_heads, n_mlps, overlaps):
    heads = [[layer, head] for layer in range(L) for head in range(H)][:n_heads]
    yours = {*map(tuple, heads), *range(n_mlps)}
    body = {"text": TEXT, "heads": heads, "mlps": list(range(n_mlps)), "tokens": {"3": "hide"}}
    drawn = compute.draw_random(subject, read_experiment(body, subject))
    answer = client.post("/api/random", json=body).json()
    assert len(drawn) == answer["draws"] == len(answer["after"]) == 20
    changed = 0
    for (heads, mlps), after in zip(drawn, answer["after"], strict=True):
        assert len(set(heads)) == len(heads) == n_heads
        assert len(set(mlps)) == len(mlps) == n_mlps
        run = client.post("/api/run", json=body | {"heads": [list(head) for head in heads], "mlps": mlps}).json()
        assert after == pytest.approx(run["after"], abs=1e-5)
        changed += run["predicted"] != run["predicted_before"]
    assert answer["changed"] == changed
    assert answer["overlaps"] == overlaps == sum(bool(yours & {*heads, *mlps}) for heads, mlps in drawn)
    if 0 < n_heads + n_mlps < 18:
        assert len({str(draw) for draw in drawn}) > 2  # not the same ones again and again


def test_the_padding_of_a_vocabulary_is_no_next_token(language_subject):
    tokenizer = language_subject.tokenizer
    model = GPT2LM(GPT2Config(1, 1, 4, n_ctx=13, vocab_size=len(tokenizer) + 47)).eval()
    with torch.no_grad():
        model.trunk.wte.weight[len(tokenizer) :] = 0
        model.trunk.ln_f.weight.zero_()
        model.trunk.ln_f.bias.fill_(1)
        model.trunk.wte.weight[: len(tokenizer)] = -1  # so that padding is likeliest
    padded = replace(language_subject, model=model.requires_grad_(False))
    experiment = read_experiment({"text": "i felt", "heads": [[0, 0]]}, padded)
    answer = compute.answer(padded, experiment)
    assert max(answer.shown) < len(tokenizer)
    assert len(set(answer.labels)) == len(answer.labels)
    assert answer.before.sum() < 0.99  # of all, padding too, as the network has them
    assert compute.run_each(padded, experiment, [([], [])]).shape == (1, len(tokenizer))


def test_a_next_token_that_is_not_shown_counts_as_changed(language_client, language_subject, lm_network):
    body = {"text": TEXT, "heads": [[0, 0], [0, 1], [1, 2], [2, 3]], "mlps": [0]}
    experiment = read_experiment(body, language_subject)
    ids = list(experiment.ids)
    tops = [
        int(probabilities(lm_network.hf, ids, heads=dict.fromkeys(heads, 0), mlps=dict.fromkeys(mlps, 0)).argmax())
        for heads, mlps in compute.draw_random(language_subject, experiment)
    ]
    shown = compute.answer(language_subject, experiment).shown.tolist()
    before = int(probabilities(lm_network.hf, ids).argmax())
    assert set(tops) - set(shown)  # or the test would see nothing
    assert language_client.post("/api/random", json=body).json()["changed"] == sum(top != before for top in tops)


@pytest.mark.parametrize("fill", ["zero", "mean", "resample"])
def test_the_lens_ends_with_the_answer_and_begins_with_the_embedding(open_client, network, fill):
    subject, hf = network
    body = {"text": TEXT, "heads": [[1, 3]], "mlps": [2], "tokens": {"0": "delete", "2": "fill", "4": "hide"}}
    each = open_client(subject)
    lens, run = (each.post(f"/api/{name}", json=body | {"fill": fill}).json() for name in ("lens", "run"))
    assert lens["labels"] == run["labels"]
    assert np.shape(lens["probabilities"]) == (L + 1, 8, len(run["labels"]))
    assert lens["probabilities"][L][7] == pytest.approx(run["after"], abs=1e-5)
    assert lens["probabilities"][L][6] != pytest.approx(run["after"], abs=1e-3)
    ids = run["ids"][1:]
    x = hf.transformer.wte.weight[ids].clone()
    x[1] = hf.transformer.wte.weight.mean(dim=0)
    with torch.no_grad():
        stream = hf.transformer.ln_f(x + hf.transformer.wpe.weight[: len(ids)])
        logits = (hf.score if subject.labels else hf.lm_head)(stream).softmax(dim=-1)
    shown = compute.answer(subject, read_experiment(body | {"fill": fill}, subject)).shown
    expected = logits if shown is None else logits[:, shown]
    assert np.array(lens["probabilities"][0]) == pytest.approx(expected.numpy(), abs=1e-5)


def unpack(text, dtype, *shape):
    return np.frombuffer(base64.b64decode(text), dtype=dtype).reshape(shape)


@pytest.mark.parametrize("every", [False, True])
def test_attention_equals_transformers(open_client, network, every):
    subject, hf = network
    body = {"text": TEXT, "heads": [[0, 3]], "tokens": {"0": "hide", "2": "delete", "4": "hide", "5": "fill"}}
    each = open_client(subject)
    answer = each.post("/api/attention", json=body | {"look": [1, 2], "all": every}).json()
    assert answer["positions"] == [0, 1, 3, 4, 5, 6, 7, 8]
    assert answer["hidden"] == [0, 3]  # positions among those that are left
    pieces = subject.tokenizer.pieces(TEXT)
    assert [tuple(token.values()) for token in answer["tokens"]] == [pieces[i] for i in answer["positions"]]
    assert (answer["n_layer"], answer["n_head"], answer["head_width"]) == (L, H, D)

    run = each.post("/api/run", json=body).json()
    ids = [token for i, token in enumerate(run["ids"]) if i != 2]
    changes = {"hidden": [0, 3], "filled": [4], "heads": {(0, 3): 0}}
    seen = {name: [] for name in "qkv"}
    handles = []
    for block in hf.transformer.h:
        for name in "qkv":
            projection, start = find_projection(block, name)
            note = partial(lambda name, start, x: seen[name].append(x[0, :, start : start + C]) or x, name, start)
            handles.append(on_output(projection, note))
    with hooked(*handles):
        weights = torch.stack(read(hf, ids, **changes, output_attentions=True).attentions)[:, 0]  # (L, H, T, T)
    weights[:, :, 0] = 0  # the first token is hidden, also from itself: no key is left
    heads = [[layer, head] for layer in range(L) for head in range(H)] if every else [[1, 2]]
    assert answer["maps"]["heads"] == heads
    T = 8
    rows, columns = np.tril_indices(T)
    got = unpack(answer["maps"]["weights"], np.uint8, len(heads), T * (T + 1) // 2) / 255
    expected = np.stack([weights[layer, head].numpy()[rows, columns] for layer, head in heads])
    assert np.abs(got - expected).max() <= 0.5 / 255 + 1e-6

    assert answer["neurons"]["heads"] == [[1, 2]]
    for name in "qk":
        values = unpack(answer["neurons"][name], "<f4", 1, T, D)[0]
        expected = seen[name][1][:, 2 * D : 3 * D].numpy()
        assert values[1:] == pytest.approx(expected[1:], abs=1e-5)  # the first one reads nothing, and nobody reads it
    q, k = (unpack(answer["neurons"][name], "<f4", T, D).astype(np.float64) for name in ("q", "k"))
    window, scale = (5, 1) if hf.config.model_type == "gpt_neo" else (T, D**-0.5)
    assert (answer["windows"], answer["scale"]) == ([T, window, T], pytest.approx(scale))
    scores = np.where(np.tri(T, dtype=bool) & ~np.tri(T, k=-window, dtype=bool), q @ k.T * scale, -np.inf)
    scores[:, [0, 3]] = -np.inf
    neuron = np.exp(scores - scores[1:].max()) / np.exp(scores - scores[1:].max()).sum(axis=1, keepdims=True).clip(
        1e-99
    )
    assert neuron == pytest.approx(weights[1, 2].numpy(), abs=1e-5)

    moved = unpack(answer["maps"]["moved"], np.uint8, len(heads), T * (T + 1) // 2) / 255
    for i, (layer, head) in enumerate(heads):
        merge, v = find_merge(hf.transformer.h[layer]), torch.zeros(T, C)
        v[:, head * D : (head + 1) * D] = seen["v"][layer][:, head * D : (head + 1) * D]
        with torch.no_grad():
            lengths = (merge(v) - merge.bias).norm(dim=-1)
        share = weights[layer, head] * lengths
        share = share / share.sum(dim=-1, keepdim=True).clamp(min=1e-30)
        assert np.abs(moved[i] - share.detach().numpy()[rows, columns]).max() <= 0.5 / 255 + 1e-5


def test_all_heads_are_refused_above_256_tokens_by_a_line_that_says_what_to_do(client, check_refusal, monkeypatch):
    monkeypatch.setattr(compute, "MOST_TOKENS", 8)
    body = {"text": TEXT, "look": [0, 0], "all": True}
    assert "9" in check_refusal(client.post("/api/attention", json=body), 400)
    assert client.post("/api/attention", json=body | {"all": False}).status_code == 200
    assert client.post("/api/attention", json=body | {"tokens": {"1": "delete"}}).status_code == 200  # 8 are left


def test_the_answer_of_run_names_what_is_predicted(client, language_client, clf_network, lm_network, language_subject):
    body = {"text": TEXT, "heads": [[0, 3]], "mlps": [2], "tokens": {"4": "hide"}}
    answer = client.post("/api/run", json=body).json()
    pieces = ["i", " felt", " so", " happy", " ", "🦜"]
    assert [token["piece"].strip() for token in answer["tokens"][:4]] == [piece.strip() for piece in pieces[:4]]
    for token in answer["tokens"]:
        assert token["piece"] == TEXT[token["start"] : token["end"]]
    assert sum(answer["before"]) == pytest.approx(1, abs=1e-9)
    assert answer["labels"] == ["anger", "fear", "joy", "love"]
    assert answer["predicted"] == answer["labels"][np.argmax(answer["after"])]
    assert answer["predicted_before"] == answer["labels"][np.argmax(answer["before"])]
    assert answer["seconds"] > 0

    answer = language_client.post("/api/run", json=body).json()
    ids = answer["ids"]
    before = probabilities(lm_network.hf, ids)
    after = probabilities(lm_network.hf, ids, hidden=[4], heads={(0, 3): 0}, mlps={2: 0})
    shown = list(dict.fromkeys([*before.topk(10).indices.tolist(), *after.topk(10).indices.tolist()]))
    assert answer["labels"] == [language_subject.tokenizer.decode([token]) for token in shown]
    assert answer["before"] == pytest.approx(before[shown].tolist(), abs=1e-7)
    assert answer["after"] == pytest.approx(after[shown].tolist(), abs=1e-7)
    assert answer["predicted"] == language_subject.tokenizer.decode([int(after.argmax())])
