"""Bad input through the real commands: the exit code, the words, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from cnnx.runtimes import get

# conftest.py is imported by pytest alone: several folders have one.
CLASSES, SIDE = 10, 16
SETS = ["--calibration-data", "digits", "--calibration-images", "8"]
SETS += ["--validation-data", "digits", "--validation-images", "16"]
