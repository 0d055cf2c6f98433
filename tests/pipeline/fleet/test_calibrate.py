"""`cnnx.fleet_calibrate`: the statistics of one machine, however images are spread over nodes."""

import dataclasses
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnnx
from cnnx.errors import BundleError, EnvironmentLacks
from cnnx.options.fleet import FleetCalibrateOptions
from cnnx.pipeline.fleet.calibrate import calibrate_on
from cnnx.pipeline.fleet.work.job import EXPORT
from cnnx.pipeline.plain import plain
from cnnx.pipeline.progress import ProgressEvent
from cnnx.schema import from_plain
from tests.conftest import save_tiny
from tests.doubles.in_process_pool import ALIKE, InProcessPool, node
from tools.docs.printed import COMMANDS, printed

IMAGES = 45
SETS = {"calibration_data": "digits", "calibration_images": IMAGES}
RAN = "calibration images through the graph"


@pytest.fixture
def own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache") / "cnnx"
    monkeypatch.setenv("CNNX_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A user's ONNX file in an own cache, with the files of statistics and the result of one machine."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNNX_CACHE", str(folder / "cnnx"))
        model = save_tiny(folder)
        result = cnnx.calibrate(model, **SETS)
        files = {file.parent.name: file.read_bytes() for file in folder.glob("cnnx/statistics/*/*.npz")}
        yield folder / "cnnx", model, result, files


def over(pool, model, listener=lambda _: None, **options):
    return calibrate_on(pool, model, FleetCalibrateOptions(**SETS, **options), listener=listener)


def ranges_of(result):
    """All of a result but its times."""
    return dataclasses.replace(result, steps=(), seconds=0.0)


def reused(run):
    """The steps of a run that were found in the cache."""
    events: list[ProgressEvent] = []
    run(events.append)
    return {event.step for event in events if event.reused}


@settings(max_examples=4)
@given(st.integers(1, 60), st.integers(), st.integers(1, 4), st.sampled_from([None, "orin-nano"]))
def test_any_shards_in_any_order_give_the_statistics_of_one_machine(alone, shard_images, seed, nodes, on):
    cache, model, result, files = alone
    shutil.rmtree(cache / "statistics")
    pool = InProcessPool(*ALIKE[-nodes:], seed=seed)
    found = over(pool, model, on=on, shard_images=shard_images)
    assert ranges_of(found.calibration) == ranges_of(result)
    for key, content in files.items():
        assert (cache / "statistics" / key / "statistics.npz").read_bytes() == content, "under the same key"
    assert found.kept and not found.notes and found.sharding.is_exact and found.sharding.batch == 1
    assert sum(each.images["statistics"] for each in found.sharding.nodes) == IMAGES
    assert len(pool.done) == -(-IMAGES // shard_images)


@pytest.mark.parametrize("other", ["shard", "probe"])
def test_statistics_of_other_images_are_refused_and_not_kept(own_cache, tmp_path, other):
    model, first = save_tiny(tmp_path), []

    def spoils(job, answer):
        if not first:
            first.append(job.name)
            files = {part: answer.folder / part / "statistics.npz" for part in ("shard", "probe")}
            spoiled = files.pop(other)
            [wrong] = files.values()
            shutil.copyfile(wrong, spoiled)

    with pytest.raises(EnvironmentLacks, match=rf"{other}/statistics\.npz has statistics of"):
        over(InProcessPool(*ALIKE, spoils=spoils), model, shard_images=8)
    again = InProcessPool(*ALIKE, seed=1)
    found = over(again, model, shard_images=8)
    assert found.sharding.is_exact and first[0] in [job.name for job, _ in again.done]


def test_an_export_here_reuses_the_statistics(own_cache, tmp_path):
    model = save_tiny(tmp_path)
    few = {
        "validation_data": "digits",
        "validation_images": 16,
        "target": "ort",
        "precision": "int8",
        "out": tmp_path / "b",
    }
    found = over(InProcessPool(*ALIKE), model, shard_images=8)
    assert found.exit_code == 0
    assert RAN in reused(lambda listener: cnnx.export(model, **SETS, **few, listener=listener))
    again = InProcessPool(*ALIKE)
    assert ranges_of(over(again, model).calibration) == ranges_of(found.calibration) and not again.done


def test_folds_are_those_of_one_machine(own_cache, tmp_path):
    model = save_tiny(tmp_path)
    result = cnnx.calibrate(model, **SETS, folds=3)
    shutil.rmtree(own_cache / "statistics")
    found = over(InProcessPool(*ALIKE), model, shard_images=4, folds=3)
    assert ranges_of(found.calibration) == ranges_of(result) and found.kept
    assert sum(each.images["statistics"] for each in found.sharding.nodes) == IMAGES


def test_statistics_of_nodes_that_compute_differently_are_not_those_of_this_machine(own_cache, tmp_path):
    model = save_tiny(tmp_path)
    nodes = (node("a", EXPORT), node("b", EXPORT, cpu="another CPU"))
    found = over(InProcessPool(*nodes, rounds_up=["b"]), model, shard_images=8, folds=2)
    assert not found.kept and "as its nodes compute differently" in found.notes[0]
    from_plain(printed(COMMANDS["fleet calibrate"]), plain(found), where="--json", error=BundleError)
    assert 0 < found.sharding.differences["statistics"] <= np.spacing(np.float32(64))
    assert "the first batch differs between nodes, at most by (statistics: " in repr(found)
    # All nodes alike, but not as this machine.
    shutil.rmtree(own_cache / "statistics")
    found = over(InProcessPool(*nodes, rounds_up=["a", "b"]), model, shard_images=8)
    assert not found.kept and "this machine computes differently" in found.notes[0]
    assert found.sharding.is_exact
    assert RAN not in reused(lambda listener: cnnx.calibrate(model, **SETS, listener=listener))
    shutil.rmtree(own_cache / "statistics")
    found = over(InProcessPool(*nodes, rounds_up=["a", "b"]), model, shard_images=8, keep_unequal=True)
    assert found.kept and not found.notes
    assert RAN in reused(lambda listener: cnnx.calibrate(model, **SETS, listener=listener))


def test_a_lost_shard_leaves_no_ranges_and_the_same_command_resumes(own_cache, tmp_path):
    model = save_tiny(tmp_path)
    losing = InProcessPool(*ALIKE, loses=lambda job: job.name.startswith("images 9 "))
    found = over(losing, model, shard_images=8)
    assert found.calibration is None and found.exit_code == 6
    assert [each.job for each in found.lost] == ["images 9 to 16, statistics"]
    assert not list(own_cache.glob("statistics/*"))
    resumed = InProcessPool(*ALIKE)
    assert over(resumed, model, shard_images=8).calibration.images == IMAGES
    assert [job.name for job, _ in resumed.done] == ["images 9 to 16, statistics"]
    assert not list(own_cache.glob("shards/.*.partial"))


def test_a_head_without_pytorch_calibrates_a_definition_on_nodes_that_have_it(own_cache, monkeypatch):
    pytest.importorskip("torch", reason="the definition is in PyTorch")
    result = cnnx.calibrate("lenet5", **SETS)
    shutil.rmtree(own_cache / "statistics")
    importable = "cnnx.pipeline.preconditions.refusals._importable"
    monkeypatch.setattr(importable, lambda package: package != "torch")
    pool = InProcessPool(*ALIKE)
    assert ranges_of(over(pool, "lenet5", shard_images=16).calibration) == ranges_of(result)
    assert next(job.task for job, _ in pool.done) == "fp32_graph"
    with pytest.raises(EnvironmentLacks, match="no node of the fleet has it"):
        over(InProcessPool(node("a", "orin-nano")), "resnet20")
