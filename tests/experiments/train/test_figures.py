import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from pictures_on_disk import assert_whole
from sklearn.metrics import confusion_matrix

from experiments.train import figures


def draw_all(folder, k, seed):
    rng = np.random.default_rng((seed, k))
    targets = np.arange(200) % k
    probabilities = rng.dirichlet(np.ones(k), 200)
    labels = ["embarrassment and shame", "50 $ and 60 $", *(f"label {i}" for i in range(2, k))]
    matrix = confusion_matrix(targets, probabilities.argmax(1)).tolist()
    train = pd.DataFrame({"epoch": [1, 2], "split": "train", "loss": [0.9, 0.4 + 0.1 * seed], "accuracy": [0.6, 0.8]})
    figures.draw_learning_curves(pd.concat([train, train.assign(split="val", macro_f1=0.7)]), 2, folder / "curves.png")
    figures.draw_confusion_matrix(matrix, labels, folder / "confusion.png", "test")
    figures.draw_roc_and_precision_recall(targets, probabilities, labels, folder / "roc.png", "test")
    figures.draw_calibration(targets, probabilities, folder / "calibration.png", "test")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("k", [2, pytest.param(13, marks=pytest.mark.slow)])
def test_whole_pictures_and_no_state(tmp_path, k):
    settings = dict(matplotlib.rcParams)
    assert_whole(lambda folder, seed: draw_all(folder, k, seed), tmp_path)
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert names == ["calibration.png", "confusion.png", "curves.png", "roc.png"]
    assert dict(matplotlib.rcParams) == settings


def test_confusion_cells_hold_count_and_row_percent(tmp_path, saved):
    figures.draw_confusion_matrix([[3, 1], [0, 0]], ["no", "yes"], tmp_path / "x.png", "test")
    axes = saved[0].axes[0]
    assert [text.get_text() for text in axes.texts] == ["3\n75.0%", "1\n25.0%", "0\n0.0%", "0\n0.0%"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["no", "yes"]


def test_more_than_20_classes_go_without_numbers(tmp_path, saved):
    for K in (20, 21):
        figures.draw_confusion_matrix(
            np.eye(K, dtype=int).tolist(), [str(k) for k in range(K)], tmp_path / "x.png", "test"
        )
    twenty, more = saved
    assert len(twenty.axes[0].texts) == 400
    assert not more.axes[0].texts
    assert words_of(twenty.axes[0]) == ("test", "predicted", "true")
    assert twenty.axes[0].images[0].get_clim() == (0, 1)


def test_28_classes_have_28_styles_and_one_without_texts_has_no_curve(tmp_path, saved):
    rng = np.random.default_rng(0)
    targets, labels = np.arange(400) % 28, [f"class {k}" for k in range(29)]
    figures.draw_roc_and_precision_recall(targets, rng.dirichlet(np.ones(29), 400), labels, tmp_path / "x.png", "test")
    chance, *curves = saved[0].axes[0].get_lines()
    assert chance.get_label() == "chance"
    assert [curve.get_label().split("  ")[0] for curve in curves] == labels[:28]
    assert len({(curve.get_color(), curve.get_linestyle()) for curve in curves}) == 28


@pytest.mark.parametrize(("k", "longest"), [(2, 40), (14, 8), (28, 40), (77, 20)])
def test_the_legend_of_many_classes_is_whole_and_leaves_room(tmp_path, k, longest):
    rng, drawn = np.random.default_rng(0), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "save", lambda figure, path: drawn.append(figure))
        labels = [str(i).rjust(longest, "n") for i in range(k)]
        targets, p = np.arange(4 * k) % k, rng.dirichlet(np.ones(k), 4 * k)
        figures.draw_roc_and_precision_recall(targets, p, labels, tmp_path / "x.png", "test")
    [figure] = drawn
    figure.draw_without_rendering()
    box, size = figure.legends[0].get_window_extent(), figure.bbox
    assert min(box.x0, box.y0, size.x1 - box.x1, size.y1 - box.y1) > 0
    assert all(axes.get_window_extent().width > 3 * figure.dpi for axes in figure.axes)


def lines_of(axes):
    """label -> (x, y) of each line that has one."""
    lines = [line for line in axes.get_lines() if not line.get_label().startswith("_")]
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in lines}


def words_of(axes):
    return axes.get_title(), axes.get_xlabel(), axes.get_ylabel()


def test_learning_curves_hold_what_was_measured(tmp_path, saved):
    train = pd.DataFrame({"epoch": [1, 2], "split": "train", "loss": [0.9, 0.4], "accuracy": [0.6, 0.8]})
    val = pd.DataFrame({"epoch": [1, 2], "split": "val", "loss": [0.8, 0.7], "accuracy": [0.5, 0.7], "macro_f1": 0.3})
    figures.draw_learning_curves(pd.concat([train, val]), 2, tmp_path / "x.png")
    left, right = saved[0].axes
    kept = {"kept: epoch 2": ([2, 2], [0, 1])}
    losses = {"train loss": ([1, 2], [0.9, 0.4]), "val loss": ([1, 2], [0.8, 0.7])}
    assert lines_of(left) == losses | kept
    accuracies = {"train accuracy": ([1, 2], [0.6, 0.8]), "val accuracy": ([1, 2], [0.5, 0.7])}
    assert lines_of(right) == accuracies | {"val macro-F1": ([1, 2], [0.3, 0.3])} | kept
    assert [words_of(axes) for axes in (left, right)] == [
        ("Loss", "epoch", "cross-entropy (nats)"),
        ("Accuracy and macro-F1", "epoch", "score"),
    ]
    assert left.get_ylim()[0] == 0
    for axes in (left, right):
        assert [text.get_text() for text in axes.get_legend().get_texts()] == [*lines_of(axes)]


def test_where_the_language_model_learnt_its_loss_has_a_panel(tmp_path, saved):
    log = [
        {"epoch": 0, "split": "train", "lm_loss": 5.0},
        {"epoch": 0, "split": "val", "lm_loss": 4.5},
        {"epoch": 1, "split": "train", "loss": 0.9, "accuracy": 0.6},
        {"epoch": 1, "split": "val", "loss": 0.8, "accuracy": 0.5, "macro_f1": 0.3, "lm_loss": 4.0},
    ]
    figures.draw_learning_curves(pd.DataFrame(log), 1, tmp_path / "x.png")
    left, right, third = saved[0].axes
    kept = {"kept: epoch 1": ([1, 1], [0, 1])}
    assert lines_of(left) == {"train loss": ([1], [0.9]), "val loss": ([1], [0.8])} | kept
    assert len(lines_of(right)) == 4
    assert lines_of(third) == {"train lm_loss": ([0], [5.0]), "val lm_loss": ([0, 1], [4.5, 4.0])} | kept
    assert words_of(third) == ("Loss of the next token", "epoch", "cross-entropy (nats)")


def test_roc_and_precision_recall_by_hand(tmp_path, saved):
    """Scores of the second class: a text of it, one of the first, and two more of it."""
    second = np.array([0.9, 0.7, 0.6, 0.2])
    probabilities = np.stack([1 - second, second], axis=1)
    figures.draw_roc_and_precision_recall(
        np.array([1, 0, 1, 1]), probabilities, ["no", "yes"], tmp_path / "x.png", "val"
    )
    left, right = saved[0].axes
    average_precision = (1 + 2 / 3 + 3 / 4) / 3
    curves = lines_of(left)
    assert [*curves] == ["chance", "no  AUC 0.333  AP 0.333", f"yes  AUC 0.333  AP {average_precision:.3f}"]
    x, y = curves[[*curves][2]]
    assert [*zip(x, y, strict=True)] == [(0, 0), (0, pytest.approx(1 / 3)), (1, pytest.approx(1 / 3)), (1, 1)]
    recall, precision = right.get_lines()[2].get_data()
    assert recall.tolist() == pytest.approx([1, 2 / 3, 1 / 3, 1 / 3, 0])
    assert precision.tolist() == pytest.approx([3 / 4, 2 / 3, 1 / 2, 1, 1])
    assert [line.get_ydata()[0] for line in right.get_lines()[1::2]] == [1 / 4, 3 / 4]  # chance: the class's share
    assert right.get_lines()[2].get_drawstyle() == "steps-post"
    assert words_of(left) == ("ROC", "false positive rate", "true positive rate")
    assert words_of(right) == ("Precision and recall (thin: chance)", "recall", "precision")
    assert right.get_ylim() == left.get_ylim()
    assert saved[0].get_suptitle() == "val"
    assert [text.get_text() for text in saved[0].legends[0].get_texts()] == [*curves]


def test_calibration_by_hand(tmp_path, saved):
    """Two texts of confidence 0.71, one of them right, and one of 0.95, right."""
    probabilities = np.array([[0.71, 0.29], [0.71, 0.29], [0.05, 0.95]])
    figures.draw_calibration(np.array([0, 1, 1]), probabilities, tmp_path / "x.png", "val")
    above, below = saved[0].axes
    assert lines_of(above)["perfect calibration"] == ([0, 1], [0, 1])
    assert lines_of(above)["texts by confidence"] == (pytest.approx([0.71, 0.95]), [0.5, 1])
    assert above.get_title() == f"val\nECE {(2 * 0.21 + 0.05) / 3:.3f}"
    assert [text.get_text() for text in above.get_legend().get_texts()] == [*lines_of(above)]
    bars = {bar.get_height(): bar.get_x() + bar.get_width() / 2 for bar in below.patches if bar.get_height()}
    assert bars == {2: pytest.approx(10.5 / 15), 1: pytest.approx(14.5 / 15)}
    assert [text.get_text() for text in below.texts] == [str(n) for n in [*[0] * 10, 2, 0, 0, 0, 1]]
    assert (above.get_ylabel(), below.get_ylabel(), below.get_xlim()) == ("accuracy", "texts", (0, 1))


def test_a_failing_save_leaves_nothing_and_keeps_what_was_there(tmp_path, monkeypatch):
    def fail(self, path, **kwargs):
        path.write_bytes(b"half a picture")
        raise OSError("no space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    path = tmp_path / "confusion.png"
    path.write_bytes(b"the one before")
    with pytest.raises(OSError, match="no space"):
        figures.draw_confusion_matrix([[1, 0], [0, 1]], ["no", "yes"], path, "test")
    assert [p.name for p in tmp_path.iterdir()] == ["confusion.png"]
    assert path.read_bytes() == b"the one before"
