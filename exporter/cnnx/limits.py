"""Limits on what cnnx reads. Beyond them, small input could cause endless work or fill the memory."""

from __future__ import annotations

TEXT_BYTES = 1 << 20
"""A recipe, a file of gates, a data config, a PEM file."""
KEY_PARTS = 100
"""Parts of a dotted TOML key; the time and memory to parse one grow with their square."""
LIST_BYTES = 1 << 26
"""A list of images, a file of labels or class names: ImageNet's training set takes 40 MB."""
JSON_BYTES = 1 << 28
"""A record, a report, a file of a bundle."""
JSON_LEVELS = 64
"""Levels of JSON: what cnnx writes has about ten."""
MAX_PIXELS = 50_000_000
"""An image, before or after it is resized. Larger ones are refused by their header."""
INLINED_NODES = 1 << 20
"""Nodes of an ONNX graph whose local functions are inlined."""
TENSOR_BYTES = 1 << 29
"""A tensor of an ONNX graph for one image: VGG-16's largest has 13 MB."""
STATISTICS_BYTES = 1 << 30
"""Statistics of a network's activations, unpacked: 0.3 MiB for each tensor that may be quantized."""
BATCH_BYTES = 1 << 31
"""The images of one batch, if a graph or an engine with a fixed batch is run with fewer."""
DOWNLOAD_BYTES = 1 << 33
"""A checkpoint that is downloaded."""
DOWNLOAD_BYTES_PER_SECOND = 1 << 10
"""Slower downloads are given up."""
MESSAGE_BYTES = 1 << 25
"""The header of a message of a fleet's node; files travel beside it."""
ANSWER_FILES, ANSWER_BYTES = 10_000, 1 << 33
"""What a node of a fleet sends back for one job: a bundle, logits, statistics or records."""
