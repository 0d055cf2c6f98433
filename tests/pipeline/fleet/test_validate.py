"""`cnnx.fleet_validate`: the verdict of one machine, however images are spread over nodes."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnnx
from cnnx.bundle import Bundle
from cnnx.bundle.sealed import read_sealed, write_sealed
from cnnx.errors import BundleError, EnvironmentLacks, UsageError
from cnnx.options.fleet import FleetValidateOptions
from cnnx.pipeline.fleet import validate as module
from cnnx.pipeline.fleet.validate import validate_on
from cnnx.pipeline.fleet.work.job import EXPORT
from cnnx.pipeline.fleet.work.pool import FleetPool
from cnnx.pipeline.plain import plain
from cnnx.pipeline.progress import NodeEvent
from cnnx.pipeline.records.verified import records_of
from cnnx.runtimes.trt import runtime as trt
from cnnx.runtimes.trt.runtime import TrtRuntime
from cnnx.schema import from_plain
from cnnx.stats import Verdict
from tests.conftest import save_tiny
from tests.doubles.imitated_trt import ImitatedBindings
from tests.doubles.in_process_pool import ALIKE, InProcessPool, node
from tests.doubles.local_fleet import LocalNodes
from tools.docs.printed import COMMANDS, printed

IMAGES = 45  # not a whole number of batches


@pytest.fixture(scope="module")
def own(tiny_bundle, tmp_path_factory):
    """A bundle of a user's ONNX file, options that judge it, and what `validate` gives."""
    folder = tmp_path_factory.mktemp("own")
    bundle = shutil.copytree(tiny_bundle, folder / "bundle")
    options = {"validation_data": "digits", "validation_images": IMAGES, "model": save_tiny(folder)}
    return bundle, options, cnnx.validate(bundle, target="ort", **options).validation


def over(pool, bundle, listener=lambda _: None, **options):
    return validate_on(pool, bundle, FleetValidateOptions(**options), listener=listener)


def without_nodes(validation):
    return dataclasses.replace(validation, sharding=None)


@settings(max_examples=6)
@given(st.integers(1, 60), st.integers(), st.integers(1, 4))
def test_any_shards_in_any_order_give_the_verdict_of_one_machine(own, shard_images, seed, nodes):
    bundle, options, alone = own
    pool = InProcessPool(*ALIKE[-nodes:], seed=seed)
    found = over(pool, bundle, shard_images=shard_images, **options).validation
    assert without_nodes(found).as_dict() == alone.as_dict()
    sharding = found.sharding
    assert sharding.is_exact and sharding.batch == 8 and sharding.shard_images == -(-shard_images // 8) * 8
    for what in ("original", "subject"):
        assert sum(each.images.get(what, 0) for each in sharding.nodes) == IMAGES
    assert len(pool.done) == 1 + 2 * -(-IMAGES // sharding.shard_images)


def test_a_lost_shard_leaves_no_verdict_and_the_same_command_resumes(own, tmp_path, cache):
    others = set(cache.glob("shards/.*.partial"))
    bundle, options, alone = own
    bundle = shutil.copytree(bundle, tmp_path / "bundle")
    before = len(Bundle.open(bundle).records())
    losing = InProcessPool(*ALIKE, loses=lambda job: job.name in ("images 9 to 16, subject",))
    found = over(losing, bundle, shard_images=8, **options)
    assert found.validation is None and found.verdict is Verdict.NOT_JUDGED
    assert found.verdict.exit_code == 6
    [lost] = found.lost
    assert lost.job == "images 9 to 16, subject" and "was lost" in lost.reason
    assert lost.reason in repr(found) and "the same command resumes" in repr(found)
    assert len(Bundle.open(bundle).records()) == before, "no record of fewer images"
    resumed = InProcessPool(*ALIKE, seed=1)
    again = over(resumed, bundle, shard_images=8, **options)
    assert [job.name for job, _ in resumed.done if job.task != "subject"] == [lost.job]
    assert without_nodes(again.validation).as_dict() == alone.as_dict()
    assert set(cache.glob("shards/.*.partial")) <= others, (
        "a verdict is never made of parts of an earlier one"
    )
    over(resumed, bundle, shard_images=8, **options)
    assert len(resumed.done) > 2 * IMAGES // 8


def missing(file):
    file.unlink()


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-1])


def no_array(file):
    file.write_bytes(b"PK\x03\x04 an archive")


def of_one_image_less(file):
    np.save(file, np.load(file)[1:])


def of_one_class_less(file):
    np.save(file, np.load(file)[:, 1:])


@pytest.mark.parametrize("part", ["shard", "probe"])
@pytest.mark.parametrize("spoil", [missing, cut_short, no_array, of_one_image_less, of_one_class_less])
def test_an_answer_that_cannot_be_read_is_not_kept(own, tmp_path, spoil, part):
    bundle, options, alone = own
    bundle = shutil.copytree(bundle, tmp_path / "bundle")
    first = []

    def spoils(job, answer):
        if job.task == "subject_logits" and not first:
            first.append(job.name)
            spoil(answer.folder / part / "logits.npy")

    with pytest.raises(EnvironmentLacks, match=rf"cannot be read: {part}/logits\.npy") as refused:
        over(InProcessPool(*ALIKE, spoils=spoils), bundle, shard_images=8, **options)
    assert first and "same version of cnnx" in refused.value.hint
    again = InProcessPool(*ALIKE, seed=1)
    found = over(again, bundle, shard_images=8, **options)
    assert without_nodes(found.validation).as_dict() == alone.as_dict()
    assert first[0] in [job.name for job, _ in again.done]


def test_a_run_that_was_stopped_resumes_in_its_middle(own, tmp_path):
    bundle, options, alone = own
    bundle = shutil.copytree(bundle, tmp_path / "bundle")
    begun = []

    def stop(job):
        begun.append(job)
        if len(begun) == 9:
            raise KeyboardInterrupt
        return False

    stopped = InProcessPool(*ALIKE, loses=stop)
    with pytest.raises(KeyboardInterrupt):
        over(stopped, bundle, shard_images=8, **options)
    resumed = InProcessPool(*ALIKE, seed=1)
    found = over(resumed, bundle, shard_images=8, **options)
    assert without_nodes(found.validation).as_dict() == alone.as_dict()
    first, then = ({job.name for job, _ in pool.done if job.task != "subject"} for pool in (stopped, resumed))
    assert len(first) == 7 and not first & then and len(first | then) == 12


def test_nodes_that_differ_by_one_unit_in_the_last_place_are_reported(own, tmp_path):
    bundle, options, _ = own
    bundle = shutil.copytree(bundle, tmp_path / "bundle")
    nodes = (node("a", "pi"), node("b", "pi", cpu="another CPU", onnxruntime="1.30.0"), node("c", EXPORT))
    found = over(InProcessPool(*nodes, rounds_up=["b"]), bundle, shard_images=8, **options)
    sharding = found.validation.sharding
    assert not sharding.is_exact and sharding.differences["original"] == 0
    assert 0 < sharding.differences["subject"] <= np.spacing(np.float32(64))
    assert [(each.name, each.cpu, each.versions["onnxruntime"]) for each in sharding.nodes] == [
        ("a", "a CPU", "1.31.1"),
        ("b", "another CPU", "1.30.0"),
        ("c", "a CPU", "1.31.1"),
    ]
    from_plain(printed(COMMANDS["fleet validate"]), plain(found), where="--json", error=BundleError)
    kept = records_of(Bundle.open(bundle)).verified[-1]
    assert kept.kind == "judgement" and kept.result["sharding"]["differences"] == sharding.differences
    assert "the first batch differs between nodes, at most by (original: 0, subject: " in repr(found)


def test_the_original_in_pytorch_and_its_noise_floor_are_those_of_one_machine(tmp_path):
    pytest.importorskip("torch", reason="the original is in PyTorch")
    made = cnnx.export(
        "lenet5",
        precision="int8",
        target="ort",
        out=tmp_path / "b",
        calibration_images=16,
        validation_images=16,
    )
    options = {"validation_data": "digits", "validation_images": 100}
    alone = cnnx.validate(made.bundle.path, target="ort", **options).validation
    assert alone.floor is not None and alone.right is not None
    pool = InProcessPool(*ALIKE)
    found = over(pool, made.bundle.path, shard_images=32, **options).validation
    assert without_nodes(found).as_dict() == alone.as_dict()
    assert {name for job, name in pool.done if job.needs == EXPORT} <= {"c", "d"}
    assert found.sharding.differences == {"original": 0, "floor": 0, "subject": 0}

    # Without a node that has PyTorch, only accuracy is compared, as `validate` does without PyTorch.
    devices = InProcessPool(*ALIKE[:2])
    found = over(devices, made.bundle.path, shard_images=32, **options).validation
    assert found.verdict is Verdict.NOT_JUDGED and "no node of the fleet has it" in found.reasons[0]
    assert found.gates[0].name == "accuracy / original's" and "subject" in found.sharding.differences
    named = {**options, "weights": "pretrained"}
    with pytest.raises(EnvironmentLacks, match="needs PyTorch"):
        over(devices, made.bundle.path, **named)


def test_an_engine_is_built_once_and_all_nodes_run_that_file(own, tmp_path, monkeypatch):
    bundle, options, _ = own
    bundle = shutil.copytree(bundle, tmp_path / "bundle", ignore=shutil.ignore_patterns("runs"))
    monkeypatch.setattr(trt, "RUNTIME", TrtRuntime(ImitatedBindings("11.4.0.106")))
    pool = InProcessPool(*ALIKE)
    found = over(pool, bundle, shard_images=16, **options).validation
    assert found.subject.artefact == "engine" and found.subject.runtime == "tensorrt 11.4.0.106"
    [engine] = Bundle.open(bundle).engines()
    assert engine.digest == found.subject.digest and records_of(Bundle.open(bundle)).verified
    assert len({name for job, name in pool.done if job.task == "subject_logits"}) > 1
    alone = cnnx.validate(bundle, **options).validation
    assert without_nodes(found).as_dict() == alone.as_dict()
    # The bundle has it now, so it is not built again; and the graph can be judged all the same.
    again = over(InProcessPool(*ALIKE), bundle, **options).validation
    assert without_nodes(again).as_dict() == alone.as_dict()
    graph = over(InProcessPool(*ALIKE), bundle, target="ort", **options).validation
    assert graph.subject.artefact == "graph"


def test_a_built_engine_that_no_signature_covers_is_refused_before_the_bundle_gets_it(
    own, tmp_path, monkeypatch
):
    pytest.importorskip("model_signing", reason="the extra sign")
    from tests.inputs.keys import key_pair

    bundle, options, alone = own
    bundle = shutil.copytree(bundle, tmp_path / "bundle", ignore=shutil.ignore_patterns("runs"))
    private, public = key_pair(tmp_path, "key")
    cnnx.sign(bundle, key=private)
    monkeypatch.setattr(trt, "RUNTIME", TrtRuntime(ImitatedBindings("11.4.0.106")))
    before = contents(bundle)
    with pytest.raises(BundleError, match="the signature does not cover") as refused:
        over(InProcessPool(*ALIKE), bundle, require_signature=public, **options)
    assert "without --require-signature" in refused.value.hint and contents(bundle) == before
    # As the hint says: without it the engine is added, with a note, and signed it runs.
    assert over(InProcessPool(*ALIKE), bundle, **options).validation.subject.artefact == "engine"
    with pytest.raises(BundleError, match="the signature does not cover"):
        over(InProcessPool(*ALIKE), bundle, require_signature=public, **options)
    cnnx.sign(bundle, key=private)
    found = over(InProcessPool(*ALIKE), bundle, require_signature=public, **options).validation
    assert found.subject.artefact == "engine" and found.verdict is alone.verdict


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def named_outside(answer, _engine):
    answer.value["engine"] = ".."


def named_otherwise(answer, engine):
    answer.value["engine"] = "other"
    engine.parent.rename(engine.parent.with_name("other"))


def not_sent(_answer, engine):
    shutil.rmtree(engine.parent)


def changed(_answer, engine):
    engine.write_bytes(engine.read_bytes() + b"1")


def of_another_graph(_answer, engine):
    file = engine.with_name("engine.json")
    write_sealed(file, {**read_sealed(file, bundle=engine.parent), "graph_digest": "0" * 64})


def said_to_be_another_file(answer, _engine):
    answer.value["subject"]["digest"] = "0" * 64


@pytest.mark.parametrize(
    "spoil",
    [named_outside, named_otherwise, not_sent, changed, of_another_graph, said_to_be_another_file],
)
def test_an_engine_that_is_not_what_its_node_says_is_not_added(own, tmp_path, monkeypatch, spoil):
    bundle, options, _ = own
    bundle = shutil.copytree(bundle, tmp_path / "bundle")
    monkeypatch.setattr(trt, "RUNTIME", TrtRuntime(ImitatedBindings("11.4.0.106")))

    def spoils(job, answer):
        if job.task == "subject":
            [description] = answer.folder.glob("engines/*/engine.json")
            spoil(answer, description.with_name(json.loads(description.read_bytes())["file"]))

    before = contents(tmp_path)
    with pytest.raises(EnvironmentLacks):
        over(InProcessPool(*ALIKE, spoils=spoils), bundle, **options)
    assert contents(tmp_path) == before


def test_workers_one_of_which_is_killed_give_the_verdict_of_one_machine(own, tmp_path, monkeypatch):
    bundle, options, alone = own
    bundle = shutil.copytree(bundle, tmp_path / "bundle")
    nodes, killed = LocalNodes({"a": "desk", "b": "desk"}), []

    @contextlib.contextmanager
    def open_pool(given, *, listener):
        with FleetPool(nodes, listener=listener, limit_s=60 * given.limit, patience_s=5) as pool:
            yield pool

    def kill_one(event):
        if not killed and isinstance(event, NodeEvent) and event.job.endswith(", subject"):
            killed.append(event.node)
            os.killpg(nodes.lines[event.node]._process.pid, signal.SIGKILL)

    monkeypatch.setattr(module, "open_pool", open_pool)
    found = cnnx.fleet_validate(bundle, shard_images=8, listener=kill_one, **options)
    assert killed and without_nodes(found.validation).as_dict() == alone.as_dict()
    assert found.validation.sharding.is_exact
    assert records_of(Bundle.open(bundle)).verified[-1].result["verdict"] == alone.verdict.value


def test_a_verdict_is_about_one_device(own):
    bundle, options, alone = own
    pool = InProcessPool(node("a", "orin-nano"), node("b", "xavier", EXPORT))
    with pytest.raises(UsageError, match="several devices: orin-nano, xavier"):
        over(pool, bundle, **options)
    for wrong, why in (
        ({"on": "tx2"}, "no node of the fleet offers tx2"),
        ({"on": "xavier", "engine": "x"}, "the bundle has no engine 'x'"),
        ({"on": "xavier", "target": "x"}, "unknown runtime 'x'"),
    ):
        with pytest.raises(UsageError, match=why):
            over(pool, bundle, **wrong, **options)
    found = over(pool, bundle, on="orin-nano", **options).validation
    assert without_nodes(found).as_dict() == alone.as_dict()
    assert [each.images for each in found.sharding.nodes] == [{"subject": IMAGES}, {"original": IMAGES}]


def test_options_that_cannot_be_are_refused_before_a_node_is_reached(own):
    bundle, options, _ = own
    with pytest.raises(UsageError, match="none are given"):
        cnnx.fleet_validate(bundle)
    for name in ("shard_images", "threads"):
        with pytest.raises(UsageError, match=f"invalid --{name.replace('_', '-')} 0"):
            cnnx.fleet_validate(bundle, **options, **{name: 0})
