"""Whatever stands at a key of a stored file: refused with its path, or taken; never another kind of error."""

import json
import shutil

import pytest

import cnnx
from cnnx.bundle import Bundle
from cnnx.bundle.sealed import write_sealed
from cnnx.errors import BundleError, InputRefused
from cnnx.pipeline.records.verified import checked, records_of
from cnnx.pipeline.survey.journal import Journal
from cnnx.pipeline.target import open_subject
from cnnx.quant.calibration import Calibration
from cnnx.report.markdown import markdown
from cnnx.report.tables.survey import survey_blocks
from tests.inputs.damage import WRONG, mutations
from tests.inputs.whole import make_whole

SEALABLE = tuple(value for value in WRONG if value != "\ud800")


@pytest.fixture(scope="module")
def whole(tiny_bundle, tmp_path_factory):
    """A bundle with an engine and a record of every kind."""
    return make_whole(tiny_bundle, tmp_path_factory.mktemp("mutated") / "b")


def unsealed(file):
    data = json.loads(file.read_text())
    data.pop("seal", None)
    return data


def named(path):
    """The last part of a path as a message has it."""
    return next((str(key) for key in reversed(path) if isinstance(key, str)), "the file")


def refused_or_taken(path, done, work):
    """1 where a refusal names the key, 0 where the value was taken."""
    try:
        work()
    except InputRefused as error:
        assert error.exit_code == 3
        assert named(path) in str(error) or done == "deleted", (path, done, str(error))
        return 1
    except Exception as error:
        raise AssertionError(f"{path} {done}: {type(error).__name__}: {error}") from error
    return 0


def outcomes(data, read, deeper=lambda: None, *, every=7, wrong=WRONG):
    """Read each mutation, the `every`-th of those taken as deep as commands do; (mutations, refused)."""
    count = refused = taken = 0
    for path, done, mutated in mutations(data, wrong):
        count += 1
        if refused_or_taken(path, done, lambda mutated=mutated: read(mutated)):
            refused += 1
            continue
        taken += 1
        if taken % every == 0:
            refused_or_taken((), done, deeper)
    return count, refused


def test_every_mutation_of_a_manifest(whole, tmp_path):
    """Sealed again, so that the seal fits."""
    shutil.copytree(whole, tmp_path / "b")
    file = tmp_path / "b" / "manifest.json"

    def read(data):
        write_sealed(file, data)
        Bundle.open(tmp_path / "b", verify=False)

    def deeper():
        cnnx.inspect(tmp_path / "b")
        open_subject(Bundle.open(tmp_path / "b"), "ort")
        cnnx.write_report(tmp_path / "b", tmp_path / "r.json")

    data = unsealed(file)
    for shape in ([], [1], [1, 1, 4, 4, 1], [1, None, 4, 4]):
        with pytest.raises(BundleError, match=r"inputs\[0\]\.shape is"):
            read({**data, "inputs": [{**data["inputs"][0], "shape": shape}]})
    count, refused = outcomes(data, read, deeper, every=60, wrong=SEALABLE)
    assert count > 1000 and refused > 0.6 * count, (count, refused)


def test_every_mutation_of_an_engine(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "b")
    [file] = tmp_path.glob("b/engines/*/engine.json")
    opened = Bundle.open(tmp_path / "b")

    def read(data):
        write_sealed(file, data)
        [engine] = opened.engines()
        opened.engine_file(engine)
        open_subject(opened, "ort")

    def deeper():
        cnnx.inspect(tmp_path / "b")

    count, refused = outcomes(unsealed(file), read, deeper, every=100, wrong=SEALABLE)
    assert count > 400 and refused > 0.6 * count, (count, refused)


def traced(data):
    """The samples of a record of energy: thousands."""
    return data["result"].get("measured", {}).get("trace", {}).get("samples")


KINDS = ("validation", "selftest", "benchmark", "energy", "diagnosis", "tensors", "streams", "soak", "tuning")


@pytest.mark.parametrize("kind", KINDS)
def test_every_mutation_of_a_record(whole, tmp_path, kind):
    """One by one, then in reports: a record that is taken is shown, one that is not hides no other."""
    shutil.copytree(whole, tmp_path / "b")
    file = sorted(tmp_path.glob(f"b/runs/*-{kind}-*.json"))[-1]
    opened = Bundle.open(tmp_path / "b")
    others = len(list(tmp_path.glob("b/runs/*.json"))) - 1

    def read(data):
        file.write_text(json.dumps(data))
        checked(opened.record(file), where=file)

    def deeper():
        for suffix in (".md", ".xml", ".csv"):
            cnnx.write_report(opened.path, tmp_path / f"r{suffix}")
        assert len(cnnx.inspect(opened.path).records) >= others

    data = json.loads(file.read_text())
    result = data["result"]
    each = [stream["latency_ns"] for count in result.get("counts", ()) for stream in count["each"]]
    for samples in (result.get("latency", {}).get("samples_ns"), traced(data), result.get("windows"), *each):
        if samples:
            del samples[2:]
    count, refused = outcomes(data, read, deeper, every=150)
    assert count > 400 and refused > 0.5 * count, (count, refused)
    file.write_text("{")
    found = records_of(opened)
    assert len(found.verified) == others and [one.file for one in found.unverified] == [f"runs/{file.name}"]


def test_every_mutation_of_a_calibration(whole):
    data = json.loads((whole / "calibration.json").read_text())
    count, refused = outcomes(data, lambda mutated: Calibration.from_json(json.dumps(mutated)))
    assert count > 150 and refused > 0.6 * count, (count, refused)


def test_every_mutation_of_a_surveys_row(whole, tmp_path):
    file = sorted(whole.glob("runs/*-benchmark-*.json"))[-1]
    measured = json.loads(file.read_text())["result"]
    data = {
        "model": "net",
        "precision": "int8",
        "batch": 1,
        "status": "done",
        "reason": "",
        "hint": "",
        "verdict": "passed",
        "follows_from": {"images": 3, "batches": [1, 1]},
        "cuda_graph": None,
        **{key: measured[key] for key in ("subject", "memory", "predicted")},
        **measured["figures"],
        "valid": True,
        "findings": ["a finding"],
        "advice": "an advice",
        "killed": 1,
        "energy": "measured",
        "sensor": "ina",
        "gross_mj": 1.0,
        "net_mj": 0.5,
        "no_energy": "",
        "energy_doubts": ["a doubt"],
    }
    follows = {("net", "int8"): data["follows_from"]}
    file = tmp_path / "rows" / "net-int8-b1.json"
    file.parent.mkdir()

    def read(mutated):
        file.write_text(json.dumps(mutated))
        journal = Journal(tmp_path, follows, again=True, energy=True)
        rows = journal.rows([("net", "int8", 1)])
        journal.is_over(("net", "int8", 1))
        markdown(survey_blocks(rows))

    count, refused = outcomes(data, read)
    assert count > 150 and refused > 0.6 * count, (count, refused)
