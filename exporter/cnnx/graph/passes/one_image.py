"""Graphs for consumers that run one image at a time."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, helper

from cnnx.graph import edit
from cnnx.graph.load import fix_batch


def with_one_image(model: ModelProto) -> ModelProto:
    """A new graph that takes one image and gives its classes, without an axis for the batch.

    Args:
        model: graph with one input (N, ...) and one output (N, classes); it is not changed.
    """
    whole = ModelProto()
    whole.CopyFrom(model)
    fix_batch(whole, 1)
    graph = whole.graph
    names = edit.Names(graph)
    [output] = graph.output
    flat, shape = names.fresh("classes"), names.fresh("classes_shape")
    graph.initializer.append(edit.tensor_from_array(shape, np.array([-1], np.int64)))
    graph.node.append(helper.make_node("Reshape", [output.name, shape], [flat], name=flat))
    classes = onnx.ValueInfoProto()
    classes.CopyFrom(output)
    classes.name = flat
    del classes.type.tensor_type.shape.dim[0]
    del graph.output[:]
    graph.output.append(classes)
    edit.check(whole)
    return whole
