"""`cnnx.load` and `cnnx classify`: images of every kind give the same classes, on any runtime."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import cnnx
from cnnx.bundle import Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.data.normalize import normalize
from cnnx.errors import ImageError, MissingExtra, UsageError
from tests.conftest import invoke


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A network with class names, for RGB images of 32 x 32 pixels, that takes up to 4 images."""
    out = tmp_path_factory.mktemp("classified") / "net"
    few = {"calibration_images": 32, "validation_images": 32}
    cnnx.export("small-mobilenet", precision="int8", out=out, batch=(1, 4), **few)
    return out


@pytest.fixture(scope="module")
def photos():
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (40, 50, 3)).astype(np.uint8) for _ in range(9)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photos):
    found = tmp_path_factory.mktemp("photos")
    (found / "below").mkdir()
    for index, pixels in enumerate(photos):
        Image.fromarray(pixels).save(found / ("below" if index > 6 else ".") / f"{index}.png")
    return found


def test_images_of_every_kind_give_the_same_logits(bundle, photos, folder):
    torch = pytest.importorskip("torch")
    with cnnx.load(bundle) as net:
        expected = net.predict(photos)
        assert expected.logits.shape == (9, 100) and expected.logits.dtype == np.float32
        tensors = [torch.from_numpy(each).permute(2, 0, 1) for each in photos]
        paths = [folder / f"{index}.png" for index in range(7)]
        for given in (
            np.stack(photos),
            [Image.fromarray(each) for each in photos],
            tensors,
            torch.stack(tensors),
        ):
            assert np.array_equal(net.predict(given).logits, expected.logits)
        assert np.array_equal(net.predict([str(path) for path in paths]).logits, expected.logits[:7])
        for one in (photos[0], tensors[0], paths[0], Image.fromarray(photos[0])):
            assert np.allclose(net.predict(one).logits, expected.logits[:1], atol=1e-5)
        gray = photos[0][..., 0]
        as_rgb = net.predict(np.repeat(gray[..., None], 3, axis=2)).logits
        for given in (gray, gray[..., None], torch.from_numpy(gray)):
            assert np.array_equal(net.predict(given).logits, as_rgb)


def test_predictions_are_what_run_gives_for_the_preprocessing_of_the_bundle(bundle, photos):
    recipe = recipe_of(Bundle.open(bundle).manifest)
    with cnnx.load(bundle) as net:
        crops = np.stack([net.crop(each) for each in photos])
        [logits] = net.run(normalize(crops[:4], recipe.preprocessing)).values()
        found = net.predict(photos[:4])
        assert np.array_equal(found.logits, logits)
    assert np.allclose(found.probabilities.sum(axis=1), 1)
    names = Bundle.open(bundle).labels
    for row, guesses in zip(found.probabilities, found.top(3), strict=True):
        assert [each.index for each in guesses] == np.argsort(-row)[:3].tolist()
        assert [each.name for each in guesses] == [names[each.index] for each in guesses]
        assert [each.probability for each in guesses] == sorted(
            (float(row[each.index]) for each in guesses), reverse=True
        )


def test_several_threads_share_a_classifier(bundle, photos):
    with cnnx.load(bundle) as net:
        alone = [net.predict(each).logits for each in photos]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda each: net.predict(each).logits, photos * 4))
    assert all(np.array_equal(a, b) for a, b in zip(alone * 4, together, strict=True))


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (np.zeros((32, 32, 3), np.float32), "float32, not uint8"),
        (np.zeros((32, 32, 2), np.uint8), r"shape \(32, 32, 2\)"),
        (np.zeros((2, 2, 32, 32, 3), np.uint8), "shape"),
        (np.zeros((0, 32, 3), np.uint8), r"shape \(0, 32, 3\)"),
        ([], "no images were given"),
        (3, "int is not an image"),
        ([None], "NoneType is not an image"),
        ("absent.png", "cannot be decoded"),
        ({"0.png": 1}, "dict is not an image"),
        (b"0.png", "bytes is not an image"),
        (Image.new("La", (8, 8)), "mode La"),
        (Image.new("RGB", (0, 8)), "size"),
    ],
)
def test_what_is_no_image_is_refused(bundle, given, what):
    with cnnx.load(bundle) as net, pytest.raises(ImageError, match=what) as caught:
        net.predict(given)
    assert caught.value.hint


def test_folders_are_classified_in_order_and_a_damaged_file_hides_no_other(bundle, folder, photos, tmp_path):
    (folder / "bad.jpg").write_text("no image")
    found = cnnx.classify(bundle, [folder], top=3)
    assert [each.image for each in found.images] == [
        str(folder / name)
        for name in (
            "0.png",
            "1.png",
            "2.png",
            "3.png",
            "4.png",
            "5.png",
            "6.png",
            "bad.jpg",
            "below/7.png",
            "below/8.png",
        )
    ]
    assert found.images[7].guesses == () and "cannot be decoded" in found.images[7].reason
    with cnnx.load(bundle) as net:
        top = net.predict(photos).top(3)
    good = [each for each in found.images if not each.reason]
    assert [[guess.index for guess in each.guesses] for each in good] == [
        [guess.index for guess in each] for each in top
    ]
    assert found.network_images_per_second >= found.images_per_second > 0
    assert len(cnnx.classify(bundle, folder, limit=2).images) == 2
    done = invoke("classify", bundle, folder / "0.png", folder / "below", "--json")
    printed = json.loads(done.stdout)["result"]
    assert done.exit_code == 0 and [len(each["guesses"]) for each in printed["images"]] == [5, 5, 5]
    shown = invoke("classify", bundle, folder, "--top", "1")
    assert (
        shown.exit_code == 0
        and "not one of the formats" in shown.stdout
        and "images/s with decoding" in shown.stdout
    )


def test_a_video_is_classified_frame_by_frame(bundle, photos, tmp_path):
    cv2 = pytest.importorskip("cv2", reason="videos need OpenCV")
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (50, 40))
    for pixels in photos:
        writer.write(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    writer.release()
    found = cnnx.classify(bundle, tmp_path / "v.avi", limit=6)
    assert [each.image for each in found.images] == [
        f"{tmp_path / 'v.avi'} frame {index}" for index in range(6)
    ]
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(ImageError, match="OpenCV cannot open it"):
        cnnx.classify(bundle, tmp_path / "bad.mp4")
    with pytest.raises(UsageError, match="a camera has no end"):
        cnnx.classify(bundle, "camera:0")
    with pytest.raises(UsageError, match="invalid camera"):
        cnnx.classify(bundle, "camera:front", limit=1)


def test_what_cannot_be_classified_is_refused(bundle, tmp_path, monkeypatch):
    (tmp_path / "bad.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    for given, what in (
        (tmp_path / "absent", "no such file or folder"),
        (tmp_path / "empty", "the folder contains no images"),
        (tmp_path / "bad.png", "no image can be read"),
    ):
        done = invoke("classify", bundle, given)
        assert done.exit_code == 3 and what in done.stderr and "hint" in done.stderr
    assert invoke("classify", bundle).exit_code == 2
    assert invoke("classify", bundle, tmp_path / "bad.png", "--engine", "none").exit_code == 2
    monkeypatch.setattr("cnnx.data.streams.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="opencv"):
        cnnx.classify(bundle, "camera:0", limit=1)


def test_classes_without_names_are_numbers(tiny_bundle):
    with cnnx.load(tiny_bundle) as net:
        channels, height, width = Bundle.open(tiny_bundle).manifest.inputs[0].shape[1:]
        [guesses] = net.predict(np.zeros((height, width, channels), np.uint8)).top(2)
    assert [each.name for each in guesses] == [str(each.index) for each in guesses]
