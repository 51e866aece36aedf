"""The comparisons with other libraries: answers first, then times, as a table, a file, a figure."""

import json
import math
import os
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import compare_layers, compare_steps, limits, per_example, pulls
from experiments.speed import bench, cores, peers, report, tables, timing


@pytest.fixture(autouse=True)
def strict_jax():
    """Overrides the fixture of that name: experiments run as their users run them."""


def _run(script, results, *arguments):
    script.main(["--quick", "--results", str(results), *arguments])


def _check_files(results, name):
    content = json.loads((results / f"{name}.json").read_text())
    assert (results / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert {"date", "device", "processor", "threads", "versions", "options"} < set(content)
    assert content["versions"]["jax"]
    return content["measurements"], {line["group"]: line for line in content["summary"]}


def test_layers(tmp_path, capsys):
    _run(compare_layers, tmp_path, "--only", "volume_time,pool4_16384", "--check")
    measurements, summary = _check_files(tmp_path, "layers")
    assert len(measurements) == 3 + 4
    for found in measurements:
        assert {"jconv", "lax"} <= set(found["seconds"])
        assert {"jconv", "lax"} <= set(found["compile_seconds"])
        assert {"jconv", "lax"} <= set(found["scratch_bytes"])
        assert 0 <= found["errors"]["jconv"] < 1e-5
    assert {"convolution", "pooling forward", "pooling backward"} == set(summary)
    printed = capsys.readouterr().out
    assert "volume_time" in printed
    assert "convolution, lax / jconv: geometric mean" in printed
    assert "from core to core and back: " in printed


def _flops(results, *arguments):
    _run(compare_layers, results, "--only", "volume_time", *arguments)
    measurements, _ = _check_files(results, "layers")
    return [found["flops"] for found in measurements]


def test_layers_of_another_batch(tmp_path):
    one, three = (_flops(tmp_path, "--batch", n) for n in ("1", "3"))
    assert three == [3 * count for count in one]


def test_layers_are_drawn_by_seed(tmp_path):
    first, again, other = (_flops(tmp_path, "--drawn", seed) for seed in ("0", "0", "1"))
    assert first == again != other


def test_steps(tmp_path, capsys):
    _run(compare_steps, tmp_path, "--only", "convnext_stack,resnext_stack")
    measurements, summary = _check_files(tmp_path, "steps")
    assert [found["name"] for found in measurements] == ["convnext_stack", "resnext_stack"]
    for found in measurements:
        assert {"jconv", "lax"} <= set(found["seconds"])
        assert all("is not installed" in reason for reason in found["notes"].values())
    assert summary["training steps"]["cases"] == 2
    assert "training steps, lax / jconv: geometric mean" in capsys.readouterr().out


# Answers come first

PLAN = bench.Plan(rounds=2, budget=1, tolerance=1e-4)


def _case(**functions):
    x = np.arange(1, 9, dtype=np.float32)
    programs = {
        name: lambda function=function: peers.compiled(function, x)
        for name, function in functions.items()
    }
    return bench.Case("case", "face", None, programs)


def test_wrong_answer_is_reported_and_not_timed():
    case = _case(jconv=lambda x: 2 * x, lax=lambda x: x + x, torch=lambda x: 2.02 * x)
    found = bench.measure(case, PLAN)
    assert set(found.seconds) == {"jconv", "lax"}
    assert "its answer is off by 1.0e-02" in found.notes["torch"]
    assert not report.failures([found])


def _not_a_number(x):
    return x * jnp.nan


def _shortened(x):
    return x[1:]


def _failing(x):
    raise RuntimeError


@pytest.mark.parametrize("wrong", [_not_a_number, _shortened, _failing])
def test_wrong_jconv_is_a_failure(wrong):
    found = bench.measure(_case(jconv=wrong, lax=lambda x: x), PLAN)
    assert set(found.seconds) == {"lax"}
    assert report.failures([found]) == ["case face"]


def test_library_that_is_not_installed_is_skipped_with_its_reason():
    case = bench.Case("case", "face", None, {"torch": lambda: peers.optional("no_such_library")})
    found = bench.measure(case, PLAN)
    assert report.notes([found]) == ["torch: no_such_library is not installed (case face, of 1)"]


def test_ratio_is_to_the_fastest_program_of_a_peer():
    seconds = {"jconv": [2.0, 1.0, 3.0], "torch contiguous": [8.0], "torch channels-last": [4.0]}
    found = bench.Measurement("case", "face", None, seconds, {}, {}, {}, {}, None)
    assert found.ratio("torch") == 2
    assert found.ratio("lax") is None
    (summary,) = report.summarize("group", [found], ["lax", "torch"])
    assert (summary.geometric_mean, summary.worst_case) == (2, "case face")


# Tables


def test_every_layer_has_the_shape_of_its_convolution():
    layers = {layer.name: layer for layer in tables.read_layers(tables.LAYERS)}
    assert layers["stem7x7s2"].shapes == ((4, 224, 224, 3), (7, 7, 3, 64), (4, 112, 112, 64))
    assert layers["dilated3x3"].out == (64, 64)
    assert layers["grouped3x3"].shapes[1] == (3, 3, 4, 128)
    assert layers["res1x1_14"].flops == 2 * 8 * 14 * 14 * 1024 * 256


@pytest.mark.parametrize("seed", range(5))
def test_drawn_layers_are_of_their_kinds(seed):
    for row in tables.read_layers(tables.LAYERS):
        drawn = tables.drawn(row, seed)
        assert drawn == tables.drawn(row, seed)
        for kept in ("name", "taps", "stride", "padding", "dilation"):
            assert getattr(drawn, kept) == getattr(row, kept)
        assert drawn.inputs == drawn.outputs or row.inputs != row.outputs
        assert min(drawn.batch, *drawn.out) > 0
        if row.groups > 1:
            assert drawn.inputs * row.groups == row.inputs * drawn.groups
            assert drawn.outputs * row.groups == row.outputs * drawn.groups
        elif row.inputs <= 4:
            assert drawn.inputs == row.inputs


def test_drawn_poolings_are_of_their_kinds():
    for row in tables.read_pools(tables.POOLS):
        drawn = tables.drawn(row, 0)
        assert (drawn.name, drawn.window, drawn.stride) == (row.name, row.window, row.stride)
        assert min(min(shape) for shape in drawn.shapes) > 0


def test_drawn_sizes_hold_a_window():
    tight = tables.Layer("tight", 1, 8, 8, (5, 9), (5, 5), (1, 1), (0, 0), (1, 2), 1)
    assert all(min(tables.drawn(tight, seed).out) > 0 for seed in range(9))


COLUMNS = "name,batch,in,out,size,taps,stride,padding,groups,dilation\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,batch\n", "must have the columns name batch in out"),
        (COLUMNS + "odd,1,1,1,8x8,3x3,1x1x1,1,1,1\n", "`stride` of odd must be one length"),
    ],
)
def test_wrong_table_is_refused(content, message, tmp_path):
    (tmp_path / "layers.csv").write_text(content)
    with pytest.raises(SystemExit, match=message):
        _run(compare_layers, tmp_path, "--layers", str(tmp_path / "layers.csv"))


@pytest.mark.parametrize("script", [compare_layers, compare_steps])
def test_unknown_row_is_refused(script, tmp_path):
    with pytest.raises(SystemExit, match=r"`only` must name any of .*; got letters"):
        _run(script, tmp_path, "--only", "letters")


# Times


def test_limits_are_measured(capsys):
    limits.main(["--quick"])
    figures = dict(re.findall(r"^ *(\S.*?)  +(\S.*)$", capsys.readouterr().out, re.MULTILINE))
    assert {"matrix product by XLA", "3x3 convolution by XLA"} <= set(figures)
    busy, cores = figures["threads that it keeps busy"].split(" of ")
    assert 0 < float(busy) <= float(cores) + 0.5
    assert all(re.search(r"GFLOP/s|GB/s|%|of", figure) for figure in figures.values())


def test_pulls_are_measured(capsys):
    pulls.main(["--quick"])
    title, *rows, within, _ = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["max", "average", "log-sum-exp", "product", "norm"]
    assert all(len(row) == len(title) for row in rows)
    assert re.match(r"within 2 forwards \d of 5, geometric mean \d+\.\d\d", within)


def test_gradients_of_single_examples_are_timed(capsys):
    per_example.main(["--quick"])
    header, *rows, summary = capsys.readouterr().out.splitlines()
    assert header.split()[:5] == ["layer", "vmap", "jconv", "patches", "product"]
    for row in rows:
        *_, ratio, product, both = map(float, row.split()[-7:])
        assert min(ratio, both) > 0
        assert both <= product
    assert len(rows) == 3
    assert "least" in summary


def test_a_bare_product_is_the_gradient_or_its_transpose():
    layer = per_example.layers(2)[6]
    gradient = math.prod(layer.shapes[1][:-1]), layer.outputs
    for product, (left, right) in per_example.products(layer):
        k = jax.eval_shape(product, jnp.zeros(left), jnp.zeros(right))
        rows, columns = math.prod(k.shape[1:-1]), k.shape[-1]
        assert (rows, columns) in (gradient, gradient[::-1])


def test_slow_function_has_fewer_turns():
    functions = {"slow": lambda: time.sleep(0.02), "fast": lambda: None}
    taken = timing.samples(functions, rounds=5, budget=0.03)
    assert len(taken["slow"]) == 2
    assert len(taken["fast"]) == 5


def test_handover_is_measured_and_leaves_the_cores_as_they_were():
    before = os.sched_getaffinity(0)
    taken = cores.handover()
    assert taken is not None
    assert 2e-8 < taken < 1e-3
    assert os.sched_getaffinity(0) == before


def test_no_handover_with_one_core(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert cores.handover() is None
