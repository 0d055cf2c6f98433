"""Model repositories for Triton: one with the engines, one with the graph."""

from __future__ import annotations

import shutil
from pathlib import Path

from cnnx.bundle import MODEL, Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.package.copies import fill_in
from cnnx.package.triton.config import config
from cnnx.package.triton.plans import Plans, plans_of
from cnnx.package.words import class_names, safe_name, trtexec
from cnnx.preprocessing.words import described

_PROGRAM = Path(__file__).parent / "program"
_PLAN = "model.plan"


def write(bundle: Bundle, folder: Path) -> tuple[str, ...]:
    """See `cnnx.package.Adapter`."""
    bundle.verify()
    name, plans = safe_name(bundle), plans_of(bundle)
    batches = plans.batches or bundle.manifest.batch
    for repository, batch in (("tensorrt", batches), ("onnxruntime", bundle.manifest.batch)):
        model = folder / repository / name
        (model / "1").mkdir(parents=True)
        (model / "labels.txt").write_text("\n".join(class_names(bundle)) + "\n", encoding="utf-8")
        text = config(bundle, name=name, backend=repository, batch=batch, plans=plans)
        (model / "config.pbtxt").write_text(text, encoding="utf-8")
    shutil.copyfile(bundle.model, folder / "onnxruntime" / name / "1" / MODEL)
    for file, engine in plans.files.items():
        shutil.copyfile(bundle.engine_file(engine), folder / "tensorrt" / name / "1" / file)
    recipe, image = recipe_of(bundle.manifest), bundle.manifest.inputs[0]
    fill_in(
        _PROGRAM / "README.md",
        folder / "README.md",
        name=name,
        engines=_engines_in_words(plans),
        trtexec=trtexec(bundle, onnx=f"onnxruntime/{name}/1/{MODEL}", engine=f"tensorrt/{name}/1/{_PLAN}"),
        shape=(max(1, bundle.manifest.batch[0]), *image.shape[1:]),
        dtype="uint8" if image.type == "uint8" else "float32",
        wire="UINT8" if image.type == "uint8" else "FP32",
        input=repr(image.name),
        output=repr(bundle.manifest.outputs[0].name),
        model=repr(name),
        request=_request(repr(bundle.manifest.outputs[0].name), repr(name), single=batches[0] == 1),
        preprocessing=described(recipe.preprocessing, recipe.input.shape, recipe.input_format),
    )
    return plans.notes


def _request(output: str, model: str, *, single: bool) -> str:
    """Python that asks for the classes. Triton ranks the logits of a whole batch if it cannot divide it."""
    client, tensors = 'triton.InferenceServerClient("localhost:8000")', f"{model}, [tensor]"
    if single:
        return (
            f"wanted = triton.InferRequestedOutput({output}, class_count=3)\n"
            f"found = {client}.infer({tensors}, outputs=[wanted])\n"
            f'print(found.as_numpy({output}))  # b"logit:index:class name"'
        )
    return (
        f"found = {client}.infer({tensors})\n"
        f"print(found.as_numpy({output}).argmax(axis=1))  # lines of labels.txt, from 0"
    )


def _engines_in_words(plans: Plans) -> str:
    if not plans.files:
        return (
            "The bundle had no TensorRT engine, so `tensorrt/` has none yet. Build one with the release of "
            "TensorRT in your Triton container, on its GPU, and start with `onnxruntime/` until then:"
        )
    more = " Start Triton with `--backend-config=tensorrt,version-compatible=true`." if plans.portable else ""
    return (
        f"`tensorrt/` has engines of TensorRT {plans.version}, by compute capability: "
        f"{', '.join(plans.by_capability) or 'any'}. Triton must have the same release.{more} For another "
        "one, build again:"
    )
