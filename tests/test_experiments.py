"""The experiments: they run, resume bit for bit, and refuse damaged files with a reason."""

import gzip
import importlib
import json
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from experiments import (
    deblur,
    dimensions,
    filters,
    gaps,
    guide,
    interrupt,
    matrices,
    natural_gradient,
    private_sgd,
    spectral_norm,
    train,
)
from experiments.__main__ import scripts
from experiments.learning import (
    checkpoints,
    clipping,
    data,
    formats,
    kfac,
    net,
    samples,
    training,
)
from jconv.curvature import KroneckerFactors

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def strict_jax():
    """Overrides the fixture of that name: experiments run as their users run them."""


def test_every_script_says_its_purpose_and_minutes():
    modules = (ROOT / "experiments").glob("[!_]*.py")
    runnable = {path.stem for path in modules if "__main__" in path.read_text()}
    assert set(scripts(ROOT / "experiments")) == runnable


# The linear map


def test_matrices_are_drawn(tmp_path):
    matrices.main(["--quick", "--results", str(tmp_path)])
    assert len(list(tmp_path.glob("matrices_*.png"))) == 4


def test_photograph_is_restored_alike_by_both_solvers():
    with jax.enable_x64(True):
        found = deblur.solve(deblur.photograph(40), sigma=1.5)
        assert deblur.rms(found.by_lineax, found.sharp) < 0.8 * deblur.rms(
            found.blurred, found.sharp
        )
        assert deblur.rms(found.by_lineax, found.by_cg) < 1e-4


def test_norms_that_layers_are_divided_by():
    ways = "norm of the map 1", "reshaped norm 1"
    by_map, by_reshaped = (spectral_norm.fit(data.load("digits"), way, steps=2) for way in ways)
    np.testing.assert_allclose([*by_map.map, *by_reshaped.reshaped], 1, atol=0.01)
    assert min(by_reshaped.map) > 1.5


# What JAX lacks


def test_answers_are_right_where_jax_has_none():
    for gap in gaps.gaps():
        assert gaps.answer(gap.by_jconv, gap.right) == "right", gap.question
        assert gaps.answer(lambda gap=gap: 1.01 * gap.by_jconv(), gap.right) != "right"

    always = [gap for gap in gaps.gaps() if "beyond" not in gap.question]
    assert not [gap for gap in always if gaps.answer(gap.by_lax, gap.right) == "right"]


# The guide and the filters


def test_guide_shows_just_the_pictures_that_its_script_draws(tmp_path):
    guide.main(["--results", str(tmp_path)])
    drawn = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    text = (ROOT / "experiments/guide.md").read_text()
    shown = re.findall(r"!\[.+\]\(guide_pictures/(.+)\)", text)
    assert sorted(shown) == sorted(drawn)
    assert sorted(path.name for path in guide.PICTURES.iterdir()) == sorted(drawn)
    assert max(drawn.values()) < 60e3


def test_guide_answers_every_question_with_code():
    _, *sections = (ROOT / "experiments/guide.md").read_text().split("\n## ")
    questions = [section.split("\n")[0] for section in sections]
    assert len(set(questions)) == 1 + 18  # the first asks why
    assert all(question.endswith("?") for question in questions)
    assert all("\n>>> " in section for section in sections)


@pytest.mark.parametrize("name", ["china", "flower"])
def test_filters_are_drawn(name, tmp_path):
    filters.main(["--quick", "--photograph", name, "--results", str(tmp_path)])
    assert (tmp_path / "filters.png").read_bytes().startswith(b"\x89PNG")


def test_filters_of_a_photograph():
    image = data.photograph("china", step=4)
    panels = filters.filtered(image)
    np.testing.assert_allclose(panels["identity"].image, image, atol=1e-6)
    np.testing.assert_allclose(
        panels["channel average"].image, image.mean(-1, keepdims=True), atol=1e-6
    )
    assert np.square(panels["blur, then Laplace"].image).mean() < (
        np.square(panels["Laplace"].image).mean() / 10
    )


# One to four dimensions


def test_dimensions_are_fitted_by_the_same_code():
    results = [dimensions.fit(n, net_steps=12) for n in (1, 3)]
    assert max(result.kernel_error for result in results) < 1e-3
    assert all(result.losses[-1] < result.losses[0] for result in results)
    assert [line[:2] for line in dimensions.table(results).split("\n")[1:]] == ["1D", "3D"]
    assert len(dimensions.draw(results).axes) == 4


def test_no_patch_is_in_training_and_test():
    data = samples.load(3)
    assert min(len(data.train), len(data.test)) > 50
    seen = {patch.tobytes() for patch in data.train}
    assert not any(patch.tobytes() in seen for patch in data.test)


# Single examples and curvature


def test_clipped_gradients_agree_and_are_clipped(tmp_path, capsys):
    options = ["--quick", "--batch", "16", "--epochs", "1", "--noises", "0", "2"]
    private_sgd.main([*options, "--results", str(tmp_path)])
    found = json.loads((tmp_path / "private_sgd.json").read_text())
    assert max(way["difference"] for way in found["ways"].values()) < 1e-5
    assert "epsilon 2.5 at delta 1e-05" in capsys.readouterr().out
    assert found["accuracy"]["0.0"] > 0.5


def test_one_clipped_gradient_has_the_norm_of_the_clip():
    dataset = data.load("digits")
    params = net.init(jax.random.key(0), (8, 8, 1), 10)
    images, labels = dataset.train_images[:1], dataset.train_labels[:1]
    gradient = jax.jit(clipping.by_norms)
    whole, clipped = (ravel_pytree(gradient(params, images, labels, c))[0] for c in (1e6, 0.1))
    np.testing.assert_allclose(np.linalg.norm(clipped), 0.1, rtol=1e-4)
    np.testing.assert_allclose(clipped / 0.1, whole / np.linalg.norm(whole), atol=1e-5)


def test_natural_gradient_divides_by_the_damped_fisher_matrix():
    rng = np.random.default_rng(0)
    a, g, b = (m @ m.T for m in (rng.normal(size=(n, n)) for n in (6, 4, 5)))
    gradient, bias = rng.normal(size=(3, 2, 4)), rng.normal(size=5)
    with jax.enable_x64(True):
        factors = KroneckerFactors(jax.numpy.asarray(a), jax.numpy.asarray(g))
        fisher = {"layer": {"kernel": factors, "bias": b}}
        gradients = jax.tree.map(jax.numpy.asarray, {"layer": {"kernel": gradient, "bias": bias}})
        steps = kfac.natural(gradients, fisher, 0.3)["layer"]
    share = np.sqrt(np.trace(a) / 6 / (np.trace(g) / 4))
    damped = np.kron(a + np.sqrt(0.3) * share * np.eye(6), g + np.sqrt(0.3) / share * np.eye(4))
    np.testing.assert_allclose(damped @ np.ravel(steps["kernel"]), gradient.ravel(), atol=1e-9)
    damped = b + 0.3 * np.eye(5)
    np.testing.assert_allclose(damped @ np.asarray(steps["bias"]), bias, atol=1e-9)


def test_natural_gradient_steps_go_further_than_gradient_steps(tmp_path):
    natural_gradient.main(["--quick", "--results", str(tmp_path)])
    found = json.loads((tmp_path / "natural_gradient.json").read_text())
    assert found["K-FAC"]["loss"][-1] < 0.6 * found["SGD, rate 0.1"]["loss"][-1]
    assert found["K-FAC"]["accuracy"] > 0.95
    assert (tmp_path / "natural_gradient.png").exists()


# Training


def test_quick_run_reports_and_draws(tmp_path, capsys):
    train.main(["--quick", "--results", str(tmp_path)])
    result = json.loads((tmp_path / "train.json").read_text())
    comparison = result["comparison"]
    assert result["test_accuracy"] > 0.7
    assert comparison["largest_difference"] < 1e-5 * comparison["largest_gradient"]
    assert "hand-derived" in capsys.readouterr().out
    for picture in ("loss", "kernels", "feature_maps", "confusion"):
        assert (tmp_path / f"{picture}.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def trainer():
    recipe = training.Recipe(epochs=2, batch=128, seed=3, learning_rate=1e-2)
    return training.prepare(recipe, data.load("digits"))


def test_stopped_run_resumes_bit_for_bit(trainer, tmp_path):
    begin, settings = training.start(trainer), training.settings(trainer)
    unbroken = training.fit(trainer, begin, save=lambda _: None, save_every=4)

    def save_and_stop(checkpoint):
        checkpoints.save(tmp_path, settings, checkpoint)
        if checkpoint.step == 16:  # five steps into the second epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.fit(trainer, begin, save_and_stop, save_every=4)
    saved = checkpoints.restore(tmp_path, settings, begin.state)
    resumed = training.fit(trainer, saved, save=lambda _: None, save_every=4)

    assert saved.step == 16
    assert resumed.history == unbroken.history
    jax.tree.map(np.testing.assert_array_equal, resumed.state, unbroken.state)


def test_killed_run_resumes_bit_for_bit(tmp_path, capsys):
    interrupt.main(["--kills", "1", "--results", str(tmp_path)])
    assert "losses and the weights are the same, bit for bit" in capsys.readouterr().out


def test_another_run_is_not_the_same(tmp_path, monkeypatch):
    ends = iter([interrupt.End({"loss": [1.0]}, "a"), interrupt.End({"loss": [1.0]}, "b")])
    monkeypatch.setattr(interrupt, "end", lambda *_: next(ends))
    with pytest.raises(SystemExit, match="The runs differ"):
        interrupt.main(["--kills", "0", "--results", str(tmp_path)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 10_000}, "`batch` must be 1 to 1437, the training images; got 10000"),
        ({"batch": 0}, "`batch` must be 1 to 1437, the training images; got 0"),
        ({"epochs": 0}, "`epochs` must be at least 1; got 0"),
    ],
)
def test_recipe_that_cannot_be_trained(trainer, change, message):
    with pytest.raises(ValueError, match=message):
        training.prepare(trainer.recipe._replace(**change), trainer.dataset)


# Checkpoints

SETTINGS = {"seed": 0}


def _checkpoint(step):
    state = {"weights": jax.numpy.arange(600.0) * step}
    return checkpoints.Checkpoint(step, state, {"loss": [1 / 3] * step})


@pytest.fixture
def saved(tmp_path):
    for step in (1, 2, 3):
        checkpoints.save(tmp_path / "run", SETTINGS, _checkpoint(step))
    return tmp_path / "run"


def _restored(directory, **settings):
    like = _checkpoint(0).state
    return checkpoints.restore(directory, SETTINGS | settings, like)


def _assert_restored(directory, step):
    restored, expected = _restored(directory), _checkpoint(step)
    jax.tree.map(np.testing.assert_array_equal, restored, expected)


def test_checkpoint_is_restored_as_it_was(saved):
    _assert_restored(saved, step=3)


def _truncate(content):
    return content[: len(content) // 2]


def _empty(content):
    return b""


def _behead(content):
    return content[1:]


def _flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def _refusals(directory, damage):
    """Damages every file of a checkpoint in turn: why it is refused, `None` if it is restored."""
    refusals = []
    for path in filter(Path.is_file, (directory / "3").rglob("*")):
        content = path.read_bytes()
        path.write_bytes(damage(content))
        try:
            refusals.append(_assert_restored(directory, step=3))
        except ValueError as error:
            refusals.append(str(error))
        path.write_bytes(content)
    return refusals


@pytest.fixture(scope="module")
def elsewhere():
    """Another process: after a failed read Orbax leaves coroutines behind that warn when freed."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("damage", [_truncate, _empty, _flip])
def test_damaged_checkpoint_is_refused_and_the_one_before_is_kept(
    saved, damage, elsewhere, tmp_path
):
    refusals = elsewhere.submit(_refusals, saved, damage).result()
    refused = [refusal for refusal in refusals if refusal]
    assert len(refused) > 2
    assert all("run/3 must be whole; it is damaged" in refusal for refusal in refused)
    (saved / "3").rename(tmp_path / "moved")
    _assert_restored(saved, step=2)


def test_run_with_other_settings_is_not_resumed(saved):
    with pytest.raises(ValueError, match="must keep its settings; `seed` was 0, got 1"):
        _restored(saved, seed=1)


def test_resuming_from_nothing(tmp_path):
    with pytest.raises(ValueError, match="must hold a checkpoint to resume from; it has none"):
        _restored(tmp_path / "empty")


def test_earlier_runs_are_set_aside(tmp_path):
    run = tmp_path / "run"
    for number in (1, 2):
        (run / str(number)).mkdir(parents=True)
        assert checkpoints.set_aside(run) == tmp_path / f"run-{number}"
    assert checkpoints.set_aside(run) is None
    run.mkdir()
    assert checkpoints.set_aside(run) is None


def test_what_holds_no_checkpoints_is_left_where_it_is(tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    (tmp_path / "7").mkdir()
    with pytest.raises(ValueError, match=r"or hold checkpoints alone; it holds thesis\.txt"):
        checkpoints.set_aside(tmp_path)
    with pytest.raises(NotADirectoryError):
        checkpoints.set_aside(tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "all of it"


@pytest.mark.parametrize(
    ("script", "arguments", "reason"),
    [
        ("filters", ["--blur", "nan"], "--blur: must be positive and finite; got nan"),
        ("train", ["--seed", "-1"], "--seed: must not be negative; got -1"),
        ("train", ["--learning-rate", "0"], "--learning-rate: must be positive and finite; got 0"),
        ("compare_layers", ["--method", "bogus"], "--method: invalid choice: 'bogus'"),
        ("filters", ["--results", __file__], "File exists"),
    ],
)
def test_wrong_options_are_refused_in_one_line(script, arguments, reason, capsys):
    module = importlib.import_module(f"experiments.{script}")
    with pytest.raises(SystemExit) as stop:
        module.main(["--quick", *arguments])
    assert reason in f"{stop.value} {capsys.readouterr().err}"


# Data


@pytest.mark.parametrize(("source", "count", "size"), [("mnist", 5000, 28), ("digits", 1797, 8)])
def test_packaged_sets_are_split_by_class(source, count, size):
    dataset = data.load(source)
    test_share = np.bincount(dataset.test_labels) / np.bincount(dataset.train_labels)
    assert len(dataset.train_images) + len(dataset.test_images) == count
    assert dataset.test_images.shape[1:] == (size, size, 1)
    assert dataset.train_images.max() == 1
    np.testing.assert_allclose(test_share, 1 / 4, atol=0.01)
    for image in dataset.test_images[:9]:
        assert not (dataset.train_images == image).all((1, 2, 3)).any()


@pytest.mark.parametrize("source", ["letters", "mnist:here", "idx", "cifar10:"])
def test_unknown_source(source):
    with pytest.raises(ValueError, match="`data` must be mnist, digits, idx:DIRECTORY or cifar10"):
        data.load(source)


IMAGES = np.random.default_rng(0).integers(0, 256, (4, 5, 6), dtype=np.uint8)
LABELS = np.array([2, 0, 1, 2], np.uint8)


def _idx(array):
    sizes = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.fixture(params=["plain", "gzipped"])
def idx_directory(request, tmp_path):
    parts = {"train": slice(None), "t10k": slice(3)}
    for part, rows in parts.items():
        for name, array in (("images-idx3", IMAGES), ("labels-idx1", LABELS)):
            path, content = tmp_path / f"{part}-{name}-ubyte", _idx(array[rows])
            if request.param == "gzipped":
                path, content = path.with_name(f"{path.name}.gz"), gzip.compress(content)
            path.write_bytes(content)
    return tmp_path


def test_idx_files_are_read(idx_directory):
    dataset = data.load(f"idx:{idx_directory}")
    np.testing.assert_allclose(dataset.train_images[..., 0], IMAGES / 255, rtol=1e-6)
    np.testing.assert_array_equal(dataset.train_labels, LABELS)
    np.testing.assert_array_equal(dataset.test_labels, LABELS[:3])
    assert dataset.names == ("0", "1", "2")


@pytest.mark.parametrize("damage", [_truncate, _empty, _behead])
def test_damaged_idx_file_is_refused(idx_directory, damage):
    for path in idx_directory.iterdir():
        content = path.read_bytes()
        path.write_bytes(damage(content))
        with pytest.raises(ValueError, match=f"{path.name} must"):
            data.load(f"idx:{idx_directory}")
        path.write_bytes(content)


def test_missing_idx_file(idx_directory):
    for path in idx_directory.iterdir():
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(FileNotFoundError, match=f"must hold {path.name.removesuffix('.gz')}"):
            data.load(f"idx:{idx_directory}")
        path.write_bytes(content)


def test_idx_images_without_a_label_each(idx_directory):
    (idx_directory / "train-labels-idx1-ubyte").write_bytes(_idx(LABELS[:2]))
    with pytest.raises(ValueError, match="a label for each; got 4 images and 2 labels"):
        formats.idx(idx_directory)


@pytest.fixture
def cifar_directory(tmp_path):
    """Three images a file, red, green and blue of different brightness."""
    pixels = np.arange(3, dtype=np.uint8).repeat(32 * 32)
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for label, name in enumerate(names):
        record = bytes([label]) + pixels.tobytes()
        (tmp_path / f"{name}.bin").write_bytes(record * 3)
    return tmp_path


def test_cifar10_files_are_read(cifar_directory):
    dataset = data.load(f"cifar10:{cifar_directory}")
    assert dataset.train_images.shape == (15, 32, 32, 3)
    np.testing.assert_allclose(dataset.train_images[0, 7, 9] * 255, [0, 1, 2])
    np.testing.assert_array_equal(dataset.train_labels, np.arange(5).repeat(3))
    np.testing.assert_array_equal(dataset.test_labels, [5, 5, 5])
    assert dataset.names[5] == "dog"


def _mislabel(content):
    return b"\xff" + content[1:]


@pytest.mark.parametrize("damage", [_truncate, _empty, _behead, _mislabel])
def test_damaged_cifar10_file_is_refused(cifar_directory, damage):
    path = cifar_directory / "data_batch_3.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"data_batch_3.bin must hold"):
        data.load(f"cifar10:{cifar_directory}")


def test_missing_cifar10_file(cifar_directory):
    (cifar_directory / "test_batch.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold test_batch.bin"):
        data.load(f"cifar10:{cifar_directory}")


def test_script_ends_with_the_reason(tmp_path):
    with pytest.raises(SystemExit, match="must hold train-images-idx3-ubyte"):
        train.main(["--data", f"idx:{tmp_path}", "--results", str(tmp_path)])
