#!/bin/sh
# Builds the engine where imageNet looks for it: its cache. imageNet would build one with other types.
set -eu
cd "$(dirname "$0")"
PATH="$PATH:/usr/src/tensorrt/bin"
trtexec --onnx=model.onnx --stronglyTyped --saveEngine=new.engine >build.log 2>&1 || {
  tail -n 20 build.log >&2
  exit 1
}
# NV_TENSORRT_VERSION, such as 100300 in "[TensorRT v100300]", is a part of the cache's name.
version=$(sed -n 's/.*\[TensorRT v\([0-9][0-9]*\)\].*/\1/p' build.log | head -n 1)
if [ -z "$version" ]; then
  echo "error: build.log does not show the TensorRT version" >&2
  exit 1
fi
# <model>.<batch>.<GPU fallback>.<version>.<device>.<precision>: FP16 whatever the types in the graph are.
engine="model.onnx.1.1.$version.GPU.FP16.engine"
mv new.engine "$engine"
sha256sum model.onnx | awk '{print $1}' >model.onnx.sha256sum
echo "$engine"
