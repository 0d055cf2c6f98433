"""Classifies images with the bundle beside this file, without cnnx.

    python3 classify.py photo.jpg ...
    python3 classify.py --self-test

It needs NumPy and Pillow, and one of: TensorRT with cuda-python or pycuda; ONNX Runtime. Preprocessing that
resamples as OpenCV does needs OpenCV. Use `Classifier` in a program of your own.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

BUNDLE = Path(__file__).resolve().parent / "bundle"


class Refused(Exception):
    """The bundle is damaged, or an image cannot be used."""

    exit_code = 3


class Lacking(Refused):
    """This machine lacks something."""

    exit_code = 4


class Classifier:
    """A bundle's engine, if one fits this machine, or else its graph.

    Args:
        bundle: the bundle's folder.
        runtime: "tensorrt" or "onnxruntime"; None: TensorRT if an engine fits.

    Raises:
        Refused: a file is damaged, or nothing here can run the bundle.
    """

    def __init__(self, bundle: Path = BUNDLE, *, runtime: str | None = None) -> None:
        self.bundle = bundle
        self.manifest = _read_sealed(bundle / "manifest.json")
        for name, digest in self.manifest["files"].items():
            _check(bundle / name, digest)
        recipe = self.manifest["recipe"]
        self.preprocessing = recipe["preprocessing"]
        self.shape = tuple(recipe["input"]["shape"])
        self.format = recipe["input"].get("format", "float32-nchw")
        classes = self.manifest["classes"]
        labels = bundle / "labels.txt"
        named = "labels.txt" in self.manifest["files"]
        self.names = labels.read_text("utf-8").splitlines() if named else [str(n) for n in range(classes)]
        self.runtime = _open(bundle, self.manifest, runtime)
        self.smallest, self.largest = self.manifest["batch"]

    def classify(self, images: Sequence[Any], count: int = 5) -> list[list[tuple[str, float]]]:
        """The most probable classes of each image, best first: name and probability.

        Args:
            images: paths, Pillow images, or uint8 arrays: (height, width, 3) in RGB, or (height, width).
            count: number of classes.
        """
        logits = self.logits(np.stack([self.crop(image) for image in images])).astype(np.float64)
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        best = np.argsort(-logits, axis=1, kind="stable")[:, :count]  # equal logits: the lower class
        return [
            [(self.names[index], float(row[index])) for index in chosen]
            for chosen, row in zip(best, scores, strict=True)
        ]

    def crop(self, image: Any) -> np.ndarray:
        """The pixels that the network sees, uint8 (height, width, channels), in its order of channels."""
        prepare = self.preprocessing
        opened = _as_image(image)
        if opened.mode[0] in "IF":
            raise Refused("the image has more than 8 bits per sample: convert it to 8 bits")
        if prepare.get("exif"):
            opened = ImageOps.exif_transpose(opened)
        opened = opened.convert("L" if prepare["color"] == "gray" else "RGB")
        frame = _frame(self.format)
        if frame is None:
            pixels = _resize(opened, prepare)
        elif (opened.height, opened.width) == frame:
            pixels = np.asarray(opened)
        else:
            raise Refused(f"the network takes images of {frame[1]} x {frame[0]}, not {opened.size}")
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        if prepare["color"] == "bgr":
            pixels = pixels[..., ::-1]
        return pixels if frame else _cut(pixels, self.shape, prepare.get("fill", [0]))

    def logits(self, crops: np.ndarray) -> np.ndarray:
        """Logits (N, classes) of crops (N, height, width, channels)."""
        images = self._input(crops)
        parts = []
        for start in range(0, len(images), self.largest):
            part = images[start : start + self.largest]
            missing = max(0, self.smallest - len(part))
            padded = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
            parts.append(self.runtime.run(np.ascontiguousarray(padded))[: len(part)])
        return np.concatenate(parts)

    def _input(self, crops: np.ndarray) -> np.ndarray:
        prepare = self.preprocessing
        if self.format.startswith("uint8"):
            layout, color = self.format.split(":")[0].split("-")[1:]
            pixels = crops if color == prepare["color"] else crops[..., ::-1]
            return pixels.transpose(0, 3, 1, 2) if layout == "nchw" else pixels
        mean, std = (np.array(prepare[key], np.float32) for key in ("mean", "std"))
        values = crops.astype(np.float32) / np.float32(prepare.get("divisor", 255.0))
        return ((values - mean) / std).transpose(0, 3, 1, 2)

    def _frames(self, crops: np.ndarray) -> np.ndarray:
        """Frames that a graph which resizes turns into these crops again; else the crops."""
        frame = _frame(self.format)
        if frame is None:
            return crops
        wide, high = _size(frame[::-1], self.preprocessing) or frame[::-1]
        rows = _block_of(frame[0], high, crops.shape[1])
        columns = _block_of(frame[1], wide, crops.shape[2])
        return crops[:, rows][:, :, columns]

    def self_test(self) -> tuple[int, int, float]:
        """Run the images in reference.npz: their number, how often the top class differs, and the worst
        divergence from the logits recorded at export, in nats.
        """
        with zipfile.ZipFile(self.bundle / "reference.npz") as file:
            crops, expected = (_array(file, name) for name in ("crops.npy", "graph.npy"))
        found = self.logits(self._frames(crops))
        ours, theirs = (_log_softmax(each) for each in (expected, found))
        divergence = (np.exp(ours) * (ours - theirs)).sum(axis=1)
        changed = int((expected.argmax(axis=1) != found.argmax(axis=1)).sum())
        return len(crops), changed, float(divergence.max())


def _block_of(length: int, scaled: int, crop: int) -> np.ndarray:
    """For each row (or column) of a frame, the row of the crop that it repeats."""
    centers = (np.arange(length) + 0.5) * scaled / length
    before = -((crop - scaled) // 2) if scaled < crop else round((scaled - crop) / 2)
    places: np.ndarray = np.clip(np.clip(centers.astype(np.intp), 0, scaled - 1) - before, 0, crop - 1)
    return places


def _array(file: zipfile.ZipFile, name: str) -> np.ndarray:
    with file.open(name) as content:
        array: np.ndarray = np.lib.format.read_array(content, allow_pickle=False)
        return array


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _frame(form: str) -> tuple[int, int] | None:
    """Height and width of the images that a graph resizes itself."""
    size = form.partition(":")[2]
    if not size:
        return None
    height, width = map(int, size.split("x"))
    return height, width


# Images


def _as_image(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, np.ndarray):
        return Image.fromarray(image)
    try:
        opened = Image.open(image, formats=("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP"))
        opened.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise Refused(f"{image} cannot be read: {reason}") from error
    return opened


def _resize(image: Image.Image, prepare: dict[str, Any]) -> np.ndarray:
    size = _size(image.size, prepare)
    if size is None:
        return np.asarray(image)
    if prepare.get("resampling", "pillow") == "pillow":
        return np.asarray(image.resize(size, getattr(Image.Resampling, prepare["interpolation"].upper())))
    import cv2

    methods = {"bilinear": "LINEAR", "bicubic": "CUBIC", "nearest": "NEAREST", "lanczos": "LANCZOS4"}
    method = getattr(cv2, f"INTER_{methods.get(prepare['interpolation'], 'AREA')}")
    resized: np.ndarray = cv2.resize(np.asarray(image), size, interpolation=method)
    return resized


def _size(size: tuple[int, int], prepare: dict[str, Any]) -> tuple[int, int] | None:
    """Width and height after the resize; None if nothing is resized."""
    (width, height), fit, wanted = size, prepare.get("fit", "shorter"), prepare["resize"]
    if fit == "none" or wanted is None:
        return None
    high, wide = (wanted, wanted) if isinstance(wanted, int) else wanted
    if fit == "squash":
        return wide, high
    if fit == "shorter" and isinstance(wanted, int):
        other = int(wanted * max(size) / min(size))  # truncated, as torchvision does
        return (wanted, other) if width <= height else (other, wanted)
    ratio = (min if fit == "shorter" else max)(height / high, width / wide)
    return max(1, round(width / ratio)), max(1, round(height / ratio))


def _cut(pixels: np.ndarray, shape: tuple[int, ...], fill: Sequence[int]) -> np.ndarray:
    """The center of an image, padded with the fill color where the image is smaller."""
    channels, high, wide = shape
    out = np.empty((high, wide, channels), np.uint8)
    out[:] = fill if len(fill) == 1 or channels == 1 else list(fill)
    (top, y, rows), (left, x, columns) = _overlap(pixels.shape[0], high), _overlap(pixels.shape[1], wide)
    out[y : y + rows, x : x + columns] = pixels[top : top + rows, left : left + columns]
    return out


def _overlap(length: int, wanted: int) -> tuple[int, int, int]:
    """Start in the image, start in the crop, and length of what they share."""
    if length < wanted:
        return 0, (wanted - length) // 2, length
    return round((length - wanted) / 2), 0, wanted


# Files


def _read_sealed(file: Path) -> dict[str, Any]:
    """The content of a JSON file whose key "seal" is the SHA-256 of all other keys."""
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        seal = content.pop("seal")
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise Refused(f"{file} cannot be read: {error!r}. Copy the bundle again.") from error
    if hashlib.sha256(canonical).hexdigest() != seal:
        raise Refused(f"{file} was modified after it was written. Copy the bundle again.")
    return content


def _check(file: Path, digest: str) -> None:
    try:
        found = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise Refused(f"{file}: {error}") from error
    if found != digest:
        raise Refused(f"{file} is damaged: its SHA-256 is {found}, not {digest}. Copy the bundle again.")


# Runtimes


def _open(bundle: Path, manifest: dict[str, Any], wanted: str | None) -> Any:
    reasons = []
    if wanted in (None, "tensorrt"):
        for folder in sorted((bundle / "engines").glob("*")):
            engine = _read_sealed(folder / "engine.json")
            if engine["runtime"] != "tensorrt" or engine["graph_digest"] != manifest["files"]["model.onnx"]:
                continue
            _check(folder / engine["file"], engine["digest"])
            try:
                return TensorRT(folder / engine["file"], engine)
            except (ImportError, Refused) as error:
                reasons.append(f"{folder.name}: {error}")
        if wanted:
            raise Lacking(f"no engine fits this machine: {'; '.join(reasons) or 'the bundle has none'}")
    try:
        return OnnxRuntime(bundle / "model.onnx")
    except ImportError as error:
        reasons.append(f"model.onnx: {error}")
    raise Lacking(f"nothing here can run the bundle: {'; '.join(reasons)}")


class OnnxRuntime:
    """The graph on ONNX Runtime, with every rounding computed as it is written."""

    def __init__(self, file: Path) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when it is imported
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        available = onnxruntime.get_available_providers()
        wanted = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
        self._session = onnxruntime.InferenceSession(str(file), options, providers=wanted)
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name

    def run(self, images: np.ndarray) -> np.ndarray:
        """The logits of one batch."""
        logits: np.ndarray = self._session.run([self._output], {self._input: images})[0]
        return logits


class TensorRT:
    """An engine on TensorRT 10 or 11, with its own stream and buffers for the largest batch."""

    def __init__(self, file: Path, description: dict[str, Any]) -> None:
        import tensorrt

        if tensorrt.__version__ != description["runtime_version"] and not description["version_compatible"]:
            raise Refused(
                f"the engine needs TensorRT {description['runtime_version']}, not {tensorrt.__version__}"
            )
        self._cuda = _cuda()
        self._trt_runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        self._engine = self._trt_runtime.deserialize_cuda_engine(file.read_bytes())
        if self._engine is None:
            raise Refused("TensorRT does not accept the engine on this GPU")
        self._context = self._engine.create_execution_context()
        self._stream = self._cuda.stream()
        modes = tensorrt.TensorIOMode
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self._input = next(name for name in names if self._engine.get_tensor_mode(name) == modes.INPUT)
        shape = tuple(self._engine.get_tensor_shape(self._input))
        if -1 in shape:
            shape = tuple(self._engine.get_tensor_profile_shape(self._input, 0)[2])
        self._context.set_input_shape(self._input, shape)
        self._outputs = {}
        for name in names:
            dtype = np.dtype(tensorrt.nptype(self._engine.get_tensor_dtype(name)))
            count = int(np.prod(tuple(self._context.get_tensor_shape(name))))
            address = self._cuda.allocate(count * dtype.itemsize)
            self._context.set_tensor_address(name, address)
            if name == self._input:
                self._address, self._dtype = address, dtype
            else:
                self._outputs[name] = (address, dtype)
        self._logits = next(iter(self._outputs))

    def run(self, images: np.ndarray) -> np.ndarray:
        """The logits of one batch."""
        self._context.set_input_shape(self._input, images.shape)
        self._cuda.upload(self._address, np.ascontiguousarray(images, self._dtype), self._stream)
        if not self._context.execute_async_v3(int(self._stream)):
            raise Refused("TensorRT did not run the engine")
        address, dtype = self._outputs[self._logits]
        logits = np.empty(tuple(self._context.get_tensor_shape(self._logits)), dtype)
        self._cuda.download(logits, address, self._stream)
        return logits.astype(np.float32)


def _cuda() -> Any:
    try:
        return CudaPython()
    except ImportError:
        return PyCuda()


class CudaPython:
    """The CUDA runtime through cuda-python."""

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError:  # cuda-python 12.6 and older
            from cuda import cudart as runtime
        self._runtime = runtime

    def _asked(self, answer: Any) -> Any:
        code, *values = answer
        if int(code):
            raise Refused(f"CUDA: {code}")
        return values[0] if values else None

    def stream(self) -> Any:
        """A new stream."""
        return self._asked(self._runtime.cudaStreamCreate())

    def allocate(self, size: int) -> int:
        """The address of device memory."""
        return int(self._asked(self._runtime.cudaMalloc(size)))

    def upload(self, address: int, values: np.ndarray, stream: Any) -> None:
        """Copy to the device."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        copy = self._runtime.cudaMemcpyAsync
        self._asked(copy(address, values.ctypes.data, values.nbytes, kind, stream))

    def download(self, values: np.ndarray, address: int, stream: Any) -> None:
        """Copy from the device, and wait."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        copy = self._runtime.cudaMemcpyAsync
        self._asked(copy(values.ctypes.data, address, values.nbytes, kind, stream))
        self._asked(self._runtime.cudaStreamSynchronize(stream))


class PyCuda:
    """The CUDA driver through pycuda."""

    def __init__(self) -> None:
        importlib.import_module("pycuda.autoinit")  # makes the context
        from pycuda import driver

        self._driver = driver
        self._kept: list[Any] = []

    def stream(self) -> Any:
        """A new stream."""
        self._kept.append(self._driver.Stream())
        return self._kept[-1].handle

    def allocate(self, size: int) -> int:
        """The address of device memory."""
        self._kept.append(self._driver.mem_alloc(size))
        return int(self._kept[-1])

    def upload(self, address: int, values: np.ndarray, stream: Any) -> None:
        """Copy to the device."""
        self._driver.memcpy_htod_async(address, values, self._kept[0])

    def download(self, values: np.ndarray, address: int, stream: Any) -> None:
        """Copy from the device, and wait."""
        self._driver.memcpy_dtoh_async(values, address, self._kept[0])
        self._kept[0].synchronize()


# Command line


def _lines(options: argparse.Namespace) -> Iterator[str]:
    net = Classifier(options.bundle, runtime=options.runtime)
    if options.self_test:
        images, changed, worst = net.self_test()
        yield f"{images} images: {changed} top classes differ, the largest divergence is {worst:.2g} nats"
    for image in options.images:
        yield image
        for name, probability in net.classify([image], options.top)[0]:
            yield f"  {probability:6.1%}  {name}"


def main() -> int:
    """Run the command line, and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("images", nargs="*", metavar="IMAGE")
    parser.add_argument("--self-test", action="store_true", help="compare with the logits from export")
    parser.add_argument("--top", type=int, default=5, help="number of classes (default 5)")
    parser.add_argument("--runtime", choices=("tensorrt", "onnxruntime"))
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    options = parser.parse_args()
    if not options.images and not options.self_test:
        parser.error("give images, or --self-test")
    try:
        for line in _lines(options):
            sys.stdout.write(f"{line}\n")
    except Refused as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
