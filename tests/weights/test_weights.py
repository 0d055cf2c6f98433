"""Finding, downloading, reading and drawing of weights."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import os
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from cnnx import models
from cnnx.errors import CnnxError, RecipeError, Unreachable, WeightsError, WriteFailed
from cnnx.recipe import Recipe, parse_recipe, read_recipe, recipe_from_dict
from cnnx.resources import shared_folder
from cnnx.store.digests import digest_of_file
from cnnx.weights import Weights, load_into, locate
from tests.doubles.web import serving

CONTENT = np.random.default_rng(0).bytes(1_500_000)
NAME = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"
OTHER = CONTENT[::-1]


@dataclasses.dataclass
class Server:
    """Serves one file over HTTP on this machine, with faults of real servers."""

    content: bytes = CONTENT
    etag: str | None = '"one"'
    honours_range: bool = True
    honours_if_range: bool = True
    wrong_by: int = 0  # offset of the response from the requested start
    breaks_after: int | None = None
    says_length: bool = True
    status: int = 200
    url: str = ""
    ranges: list[str | None] = dataclasses.field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers["Range"]
        self.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.honours_range else 0
        if self.honours_if_range and handler.headers["If-Range"] not in (None, self.etag):
            start = 0
        start += self.wrong_by if start else 0
        if start >= len(self.content):
            return handler.send_error(416)
        if self.status != 200:
            handler.send_response(self.status)
            handler.send_header("Location", "http://example.org/elsewhere")
            handler.send_header("Content-Length", "0")
            return handler.end_headers()
        handler.send_response(206 if start else 200)
        if self.etag:
            handler.send_header("ETag", self.etag)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        if self.says_length:
            handler.send_header("Content-Length", str(len(self.content) - start))
        handler.end_headers()
        end = len(self.content) if self.breaks_after is None else start + self.breaks_after
        handler.wfile.write(self.content[start:end])
        return None


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()
    with serving(served.answer) as address:
        served.url = f"{address}/{NAME}"
        yield served


@pytest.fixture(autouse=True)
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "weights" / NAME


@pytest.fixture
def recipe(tmp_path: Path, server: Server) -> Recipe:
    return make_recipe(tmp_path / "recipes", file=NAME, url=server.url)


def make_recipe(folder: Path, **weights: str) -> Recipe:
    data = {"name": "net", "model": {"definition": "lenet5", "classes": 10}, "weights": weights}
    return recipe_from_dict(data, where=folder / "net.toml")


def find(recipe: Recipe, choice: str = "pretrained") -> Weights:
    return locate(recipe, choice, progress=lambda done, total: None)


# --- finding and downloading ---------------------------------------------------------------------


def test_a_download_is_checked_kept_and_used_again(recipe: Recipe, server: Server, cached: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    found = locate(recipe, "pretrained", progress=lambda done, total: seen.append((done, total)))
    assert found.kind == "pretrained"
    assert found.file == cached
    assert found.digest == hashlib.sha256(CONTENT).hexdigest()
    assert cached.read_bytes() == CONTENT
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == ((0, len(CONTENT)), (len(CONTENT), len(CONTENT)))
    assert find(recipe) == found
    assert len(server.ranges) == 1
    assert [path.name for path in cached.parent.iterdir()] == [NAME]


def test_a_broken_download_continues_where_it_stopped(recipe: Recipe, server: Server, cached: Path) -> None:
    server.breaks_after = 600_000
    for _ in range(2):
        with pytest.raises(Unreachable, match="connection broke") as broken:
            find(recipe)
    for word in (server.url, str(cached), "--weights standin"):
        assert word in str(broken.value)
    assert not cached.exists()
    find(recipe)
    assert server.ranges == [None, "bytes=600000-", "bytes=1200000-"]
    assert cached.read_bytes() == CONTENT


def stop_after_first_block(done: int, total: int | None) -> None:
    if done:
        raise KeyboardInterrupt


def test_a_stopped_process_leaves_a_part_that_the_next_one_continues(
    recipe: Recipe, server: Server, cached: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        locate(recipe, "pretrained", progress=stop_after_first_block)
    assert not cached.exists()
    find(recipe)
    assert cached.read_bytes() == CONTENT
    assert server.ranges[1] is not None


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"honours_range": False}, id="ignores ranges"),
        pytest.param({"etag": '"two"'}, id="has another file"),
        pytest.param({"etag": '"two"', "honours_if_range": False}, id="has another file and does not mind"),
        pytest.param({"wrong_by": 5}, id="sends another range"),
    ],
)
def test_a_part_of_no_use_is_thrown_away(
    recipe: Recipe, server: Server, cached: Path, change: dict[str, Any]
) -> None:
    server.content = OTHER if "etag" in change else CONTENT
    with pytest.raises(KeyboardInterrupt):
        locate(recipe, "pretrained", progress=stop_after_first_block)
    server.content = CONTENT
    for fault, value in change.items():
        setattr(server, fault, value)
    find(recipe)
    assert cached.read_bytes() == CONTENT


def test_a_server_that_says_no_length_is_served_from_the_start(
    recipe: Recipe, server: Server, cached: Path
) -> None:
    server.says_length = False
    seen: list[int | None] = []
    with pytest.raises(KeyboardInterrupt):
        locate(recipe, "pretrained", progress=stop_after_first_block)
    locate(recipe, "pretrained", progress=lambda done, total: seen.append(total))
    assert set(seen) == {None}
    assert cached.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"DOWNLOAD_BYTES": 1000}, "sends more than 1,000 bytes"),
        ({"_PATIENCE_SECONDS": -1.0, "DOWNLOAD_BYTES_PER_SECOND": 1e15}, r"only [\d,]+ bytes came in"),
    ],
)
def test_a_download_that_is_too_large_or_too_slow_is_given_up(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, limits: dict[str, float], words: str
) -> None:
    for name, limit in limits.items():
        monkeypatch.setattr(f"cnnx.weights.download.{name}", limit)
    with pytest.raises(Unreachable, match=words):
        find(recipe)


def test_a_part_of_a_file_that_was_since_replaced_is_thrown_away(
    recipe: Recipe, server: Server, cached: Path
) -> None:
    """Without an ETag, the length or the server's refusal of the range shows the change."""
    server.etag, server.content = None, OTHER + OTHER
    server.breaks_after = 1_600_000
    with pytest.raises(Unreachable):
        find(recipe)
    server.content, server.breaks_after = CONTENT, None
    find(recipe)
    assert cached.read_bytes() == CONTENT


def test_a_part_that_is_whole_needs_no_server(recipe: Recipe, server: Server, cached: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        locate(recipe, "pretrained", progress=stop_after_first_block)
    cached.with_name(NAME + ".part").write_bytes(CONTENT)
    find(recipe)
    assert len(server.ranges) == 1
    assert cached.read_bytes() == CONTENT


def test_another_content_is_refused_with_both_hashes(recipe: Recipe, server: Server, cached: Path) -> None:
    server.content = OTHER
    with pytest.raises(WeightsError) as refusal:
        find(recipe)
    assert NAME[4:12] in str(refusal.value)
    assert hashlib.sha256(OTHER).hexdigest()[:8] in str(refusal.value)
    assert list(cached.parent.iterdir()) == []


@pytest.mark.parametrize(("status", "error"), [(404, Unreachable), (503, Unreachable), (302, RecipeError)])
def test_an_answer_without_the_file_is_explained(
    recipe: Recipe, server: Server, status: int, error: type[CnnxError]
) -> None:
    """302 redirects to plain http elsewhere, which is refused like such a URL in the recipe."""
    server.status = status
    with pytest.raises(error, match=f"{status} |over https"):
        find(recipe)


def test_no_network_says_where_to_put_the_file(tmp_path: Path, cached: Path) -> None:
    recipe = make_recipe(tmp_path, file=NAME, url=f"http://localhost:9/{NAME}")
    with pytest.raises(Unreachable) as refusal:
        find(recipe)
    assert refusal.value.exit_code == 4
    for word in (recipe.weights.url, str(cached), "--weights standin"):
        assert word in str(refusal.value)
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_bytes(CONTENT)
    assert find(recipe).file == cached


def test_a_cache_that_cannot_be_written_is_named(recipe: Recipe, cached: Path) -> None:
    cached.parent.parent.mkdir()
    cached.parent.touch()
    with pytest.raises(WriteFailed) as refusal:
        find(recipe)
    assert str(cached.parent) in str(refusal.value)


def test_two_at_once_download_once(recipe: Recipe, server: Server) -> None:
    found: list[Weights] = []
    threads = [threading.Thread(target=lambda: found.append(find(recipe))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len(server.ranges) == 1


def test_files_at_hand_are_used_in_order(
    tmp_path: Path, recipe: Recipe, server: Server, cached: Path
) -> None:
    places = [
        tmp_path / "torch" / "hub" / "checkpoints" / NAME,
        cached,
        tmp_path / "recipes" / "weights" / NAME,
    ]
    for place in places:
        place.parent.mkdir(parents=True)
        place.write_bytes(CONTENT)
        assert find(recipe).file == place
    assert server.ranges == []
    places[2].write_bytes(OTHER)
    with pytest.raises(WeightsError, match="damaged"):
        find(recipe)
    places[2].unlink()
    cached.unlink()
    places[0].write_bytes(OTHER)
    assert find(recipe).file == cached
    assert len(server.ranges) == 1


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({}, "--weights standin"),
        ({"file": "net.pth", "url": "https://example.org/net.pth"}, "does not contain its hash"),
        ({"file": "../net-01234567.pth"}, "does not contain its hash"),
        ({"file": "net-01234567.pth"}, "no URL"),
        ({"file": "net-01234567.pth", "url": "http://example.org/net-01234567.pth"}, "over https"),
        ({"file": "net-01234567.pth", "url": "file:///etc/passwd"}, "over https"),
    ],
)
def test_recipes_that_name_no_usable_weights_are_refused(
    tmp_path: Path, weights: dict[str, str], says: str
) -> None:
    with pytest.raises(CnnxError) as refusal:
        find(make_recipe(tmp_path, **weights))
    assert refusal.value.exit_code == 3
    assert says in str(refusal.value)


def test_a_file_of_the_users_is_hashed(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "mine.pth").write_bytes(CONTENT)
    found = find(recipe, str(tmp_path / "mine.pth"))
    assert (found.kind, found.digest) == ("file", hashlib.sha256(CONTENT).hexdigest())
    for choice, says in (("pretraned", "does not exist"), (str(tmp_path), "is a folder")):
        with pytest.raises(WeightsError, match=says):
            find(recipe, choice)


# --- reading checkpoints -------------------------------------------------------------------------


def lenet() -> nn.Module:
    return models.build("lenet5", classes=10, arguments={})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.pth"


def load(model: nn.Module, file: Path, recipe: Recipe | None = None) -> tuple[str, ...]:
    weights = Weights("file", "test", digest_of_file(file), file)
    return load_into(model, weights, recipe or read_recipe("lenet5"), batches_for_statistics=())


def same(model: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_a_checkpoint_that_changed_since_it_was_hashed_is_refused(file: Path) -> None:
    """Otherwise the cache would hold the graph of one under the digest of the other."""
    torch.save(lenet().state_dict(), file)
    weights = Weights("file", "test", digest_of_file(file), file)
    torch.save({name: tensor + 1 for name, tensor in lenet().state_dict().items()}, file)
    with pytest.raises(WeightsError, match="was changed while it was read"):
        load_into(lenet(), weights, read_recipe("lenet5"), batches_for_statistics=())


WRITERS: dict[str, Callable[[dict[str, torch.Tensor], Path], None]] = {
    "zip": lambda state, file: torch.save(state, file),
    "before 1.6": lambda state, file: torch.save(state, file, _use_new_zipfile_serialization=False),
    "safetensors": lambda state, file: safetensors.torch.save_file(state, file),
    "training": lambda state, file: torch.save({"state_dict": state, "epoch": 3}, file),
    "model": lambda state, file: torch.save({"model": state}, file),
    "parallel": lambda state, file: torch.save({f"module.{n}": t for n, t in state.items()}, file),
}


@pytest.mark.parametrize("form", WRITERS)
def test_every_common_form_of_checkpoint_is_read(file: Path, form: str) -> None:
    state = lenet().state_dict()
    WRITERS[form](state, file)
    model = lenet()
    assert load(model, file) == ()
    assert same(model, state)


def test_half_precision_is_widened_and_said(file: Path) -> None:
    state = {name: tensor.half() for name, tensor in lenet().state_dict().items()}
    torch.save(state, file)
    model = lenet()
    assert load(model, file) == ("10 tensors of the checkpoint were converted from float16 to float32",)
    assert same(model, {name: tensor.float() for name, tensor in state.items()})


class Evil:
    """Runs a command when unpickled."""

    def __init__(self, file: Path) -> None:
        self.command = f"touch '{file}.ran'"

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


BAD: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "code": (lambda file: saved({"conv1.weight": Evil(file)}), "would run posix.system"),
    "plain pickle": (lambda file: pickle.dumps(Evil(file), protocol=2), "would run"),
    "whole model": (lambda file: saved(lenet()), "torch.save(model.state_dict()"),
    "cut zip": (lambda file: saved(lenet().state_dict())[:9000], "truncated"),
    "cut safetensors": (lambda file: safetensors.torch.save(lenet().state_dict())[:9000], "truncated"),
    "empty": (lambda file: b"", "empty"),
    "a web page": (lambda file: b"<html>404 Not Found</html>", "not a checkpoint"),
    "no tensors": (lambda file: saved({}), "contains nothing"),
    "a tensor": (lambda file: saved(torch.ones(3)), "contains Tensor"),
    "a number": (lambda file: saved({**lenet().state_dict(), "lr": 0.1}), "entries that are not tensors: lr"),
    "sparse": (
        lambda file: saved({"conv1.weight": torch.eye(3).to_sparse()}),
        "entries that are not tensors",
    ),
    "other network": (
        lambda file: saved(torch.nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).state_dict()),
        "belongs to a different network: 10 missing (conv1.weight, conv1.bias, conv2.weight, conv2.bias, "
        "fc1.weight, fc1.bias, fc2.weight, fc2.bias and 2 more); 4 unexpected (0.weight",
    ),
    "other classes": (
        lambda file: saved(models.build("lenet5", classes=7, arguments={}).state_dict()),
        "2 with a different shape (fc3.weight: [7, 84] where the model has [10, 84], fc3.bias",
    ),
    "one missing": (lambda file: saved(without(lenet().state_dict(), "fc1.bias")), "1 missing (fc1.bias)"),
    "integers": (
        lambda file: saved({n: t.to(torch.int8) for n, t in lenet().state_dict().items()}),
        "does not fit the model: 10 with a different type (conv1.weight: int8",
    ),
    "not a number": (
        lambda file: saved({**lenet().state_dict(), "fc3.bias": torch.full((10,), torch.nan)}),
        "NaN or infinite: fc3.bias",
    ),
}


def without(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in state.items() if key != name}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_checkpoint_is_refused_and_changes_nothing(file: Path, fault: str) -> None:
    content, says = BAD[fault]
    file.write_bytes(content(file))
    model = lenet()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(WeightsError) as refusal:
        load(model, file)
    assert says in str(refusal.value)
    assert str(file) in str(refusal.value)
    assert same(model, before)
    assert not Path(f"{file}.ran").exists()


def test_the_checkpoint_of_another_known_network_is_named(file: Path) -> None:
    torch.save(lenet().state_dict(), file)
    with torch.device("meta"):
        vgg = models.build("vgg", classes=1000, arguments={})
    with pytest.raises(WeightsError, match="checkpoint belongs to lenet5"):
        load(vgg, file)


def shipped(name: str) -> tuple[nn.Module, Recipe]:
    recipe = read_recipe(name)
    spec = recipe.model
    return models.build(spec.definition, classes=spec.classes, arguments=spec.arguments), recipe


def test_what_only_training_needs_is_left_out_and_said(file: Path) -> None:
    model, recipe = shipped("googlenet-bn")
    auxiliary = {"aux1.conv.conv.weight": torch.ones(2), "aux2.fc2.bias": torch.ones(3)}
    torch.save({**model.state_dict(), **auxiliary}, file)
    assert load(shipped("googlenet-bn")[0], file, recipe)[0].endswith(
        "training-only tensors of the checkpoint were dropped: 2"
    )
    torch.save({**model.state_dict(), "aux3.fc.bias": torch.ones(3)}, file)
    with pytest.raises(WeightsError, match=r"1 unexpected \(aux3.fc.bias"):
        load(model, file, recipe)


def test_names_of_old_are_understood(file: Path) -> None:
    """torchvision's DenseNet files predate the renaming of norm.1 to norm1."""
    model, recipe = shipped("densenet121")
    old = {re.sub(r"(denselayer\d+\.(norm|conv))(\d)", r"\1.\3", n): t for n, t in model.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, file)
    other = shipped("densenet121")[0]
    load(other, file, recipe)
    assert same(other, model.state_dict())


def test_a_background_class_is_cut_off(file: Path) -> None:
    """Google's Inception files have 1,001 classes, the first of which is not an ImageNet class."""
    model, recipe = shipped("inception-v4")
    state = dict(model.state_dict())
    for name in ("last_linear.weight", "last_linear.bias"):
        state[name] = torch.cat([torch.full_like(state[name][:1], 7), state[name]])
    torch.save(state, file)
    other = shipped("inception-v4")[0]
    assert load(other, file, recipe)[0].startswith("background classes")
    assert same(other, model.state_dict())


def test_another_number_of_classes_is_named(file: Path) -> None:
    torch.save(models.build("lenet5", classes=26, arguments={}).state_dict(), file)
    with pytest.raises(WeightsError, match="has 26 classes, the recipe 10") as refusal:
        load(lenet(), file)
    assert "model.classes to 26" in str(refusal.value)


def test_the_sibling_of_other_shapes_is_named(file: Path) -> None:
    """AlexNet with two towers and with one have the same tensor names; three convolutions differ."""
    torch.save(shipped("alexnet")[0].state_dict(), file)
    model, recipe = shipped("alexnet-single-tower")
    with pytest.raises(
        WeightsError, match=r"checkpoint belongs to alexnet: 3 with a different shape \(conv2"
    ):
        load(model, file, recipe)


def test_the_sibling_of_equal_shapes_is_told_by_its_hash(tmp_path: Path) -> None:
    """v1 and v1.5 of ResNet-50 have the same tensors: a known file is refused for the other network."""
    own = shared_folder("recipes") / "weights" / read_recipe("lenet5").weights.file
    model = {"definition": "lenet5", "classes": 10, "arguments": {"variant": "other"}}
    other = recipe_from_dict({"name": "other", "model": model}, where=tmp_path / "other.toml")
    with pytest.raises(WeightsError, match="published for lenet5, not for other"):
        find(other, str(own))
    same = {"name": "same", "model": {**model, "arguments": {}}}
    assert find(recipe_from_dict(same, where=tmp_path / "same.toml"), str(own)).digest
    model["definition"] = "net.py:build"  # user definitions are not checked
    assert find(recipe_from_dict({"name": "mine", "model": model}, where=tmp_path / "m.toml"), str(own)).file


def test_an_unknown_file_that_fits_a_sibling_is_remarked_upon(file: Path) -> None:
    torch.save(shipped("cifar-plain20")[0].state_dict(), file)
    model, recipe = shipped("cifar-resnet20")
    assert load(model, file, recipe) == (
        "the tensors also fit cifar-plain20: check that they were trained for cifar-resnet20",
    )


def test_fine_tuned_classes_do_not_hide_whose_the_tensors_are(file: Path) -> None:
    """Ten classes and no batch counters, as in old checkpoints."""
    tuned = models.build("resnet", classes=10, arguments={"depth": 18})
    torch.save(without(tuned.state_dict(), "num_batches_tracked"), file)
    with pytest.raises(WeightsError, match="has 10 classes, the recipe 1000"):
        load(*shipped("resnet18")[:1], file, shipped("resnet18")[1])
    recipe = read_recipe("cifar-resnet20")
    tuned = models.build("cifar_resnet", classes=7, arguments={"depth": 20})
    torch.save(tuned.state_dict(), file)
    own = dataclasses.replace(recipe, name="own", model=dataclasses.replace(recipe.model, classes=7))
    assert "cifar-plain20" in load(tuned, file, own)[0]


def test_batch_counters_may_be_absent(file: Path) -> None:
    """Checkpoints before PyTorch 0.4.1 have no batch counters."""
    state = nn.BatchNorm2d(3).state_dict()
    torch.save(without(state, "num_batches_tracked"), file)
    assert load(nn.BatchNorm2d(3), file) == ()


def test_the_shipped_weights_load_without_a_network() -> None:
    where = shared_folder("recipes") / "lenet5.toml"
    found = find(parse_recipe(where.read_text(), where=where))
    assert found.kind == "pretrained"
    assert found.file is not None
    assert found.file.parent == where.parent / "weights"
    model = lenet()
    assert load_into(model, found, read_recipe("lenet5"), batches_for_statistics=()) == ()
    assert not same(model, lenet().state_dict())


# --- stand-ins -----------------------------------------------------------------------------------


def draw(model: nn.Module, recipe: Recipe, batches: list[np.ndarray[Any, Any]]) -> None:
    assert load_into(model, find(recipe, "standin"), recipe, batches_for_statistics=batches) == ()


def test_a_stand_in_is_the_same_every_time_and_keeps_the_scale(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    first, second = lenet(), lenet()
    draw(first, recipe, [])
    draw(second, recipe, [])
    assert same(first, second.state_dict())
    assert find(recipe, "standin") == find(recipe, "standin")
    other = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, classes=11))
    assert find(other, "standin").digest != find(recipe, "standin").digest
    # He et al., equation 10: the variance is 2 / fan-in, here of 120 * 400 draws; biases are small, not zero.
    weight, bias = first.get_parameter("fc1.weight"), first.get_parameter("fc1.bias")
    assert weight.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert 0 < bias.min() == bias.max() < 0.01
    # Golden values: other versions of NumPy and other CPUs must draw the same.
    assert weight[0, :3].tolist() == pytest.approx([0.0356326, 0.1076799, -0.0328449], rel=1e-5)


def test_batch_norm_takes_its_statistics_from_the_images(tmp_path: Path) -> None:
    def block(width: int) -> list[nn.Module]:
        return [nn.Conv2d(width, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5)]

    model = nn.Sequential(*block(3), *block(8)).eval()
    random = np.random.default_rng(1)
    images = random.normal(3, 5, (16, 3, 12, 12)).astype(np.float32)
    draw(model, make_recipe(tmp_path), [images])
    assert not any(module.training for module in model.modules())
    for depth in (2, 6):
        normed = model[:depth](torch.from_numpy(images)) - 1  # shifts of 1, because an activation reads them
        # Evaluation uses the unbiased variance, the pass that computed it the biased one.
        assert normed.mean((0, 2, 3)).abs().max().item() < 1e-3
        assert normed.var((0, 2, 3)).sub(1).abs().max().item() < 1e-2
    assert {module.momentum for module in model if isinstance(module, nn.BatchNorm2d)} == {0.1}


def test_a_stand_in_a_hundred_layers_deep_is_not_chaotic(tmp_path: Path) -> None:
    """Without shifts before the ReLUs, FP32 would differ from FP64 by a tenth here."""
    layers = [
        nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()) for _ in range(100)
    ]
    model = nn.Sequential(*layers, nn.BatchNorm2d(16))
    images = np.random.default_rng(1).normal(size=(8, 16, 8, 8)).astype(np.float32)
    draw(model, make_recipe(tmp_path), [images])
    assert [float(n.bias.mean()) for n in model.modules() if isinstance(n, nn.BatchNorm2d)] == [1.0] * 100 + [
        0.0
    ]
    x = torch.from_numpy(images)
    with torch.no_grad():
        single, double = model(x), copy.deepcopy(model).double()(x.double())
    assert ((single - double).abs().max() / double.abs().max()).item() < 1e-4


def test_batch_norm_averages_over_batches(tmp_path: Path) -> None:
    model = nn.Sequential(nn.BatchNorm2d(1))
    batches = [np.full((2, 1, 4, 4), value, np.float32) for value in (1, 2, 6)]
    draw(model, make_recipe(tmp_path), batches)
    assert model.get_buffer("0.running_mean").tolist() == pytest.approx([3])


def test_batch_norm_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="calibration images"):
        draw(nn.Sequential(nn.BatchNorm2d(1)), make_recipe(tmp_path), [])
