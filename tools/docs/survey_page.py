"""Write docs/survey.md and its charts, docs/assets/survey-*.svg, from the folder of a survey.

python -m tools.docs.survey_page FOLDER

The survey of the page was made by the commands that the page states.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cnnx.pipeline.survey.report import survey_report
from cnnx.report.markdown import markdown
from cnnx.report.plot import write_plot
from tools import ROOT
from tools.markdown import write_page

PAGE, FOLDER = ROOT / "docs" / "survey.md", ROOT / "docs" / "assets"
_WIDTH = 860  # pixels
_SHIPPED = "lenet5,resnet20,plain20,densenet22-12,small-mobilenet,small-vgg-bn,small-googlenet-bn,small-levit"
_STAND_INS = (
    "squeezenet1.1,mobilenet-v1,mobilenet-v2,efficientnet-lite0,googlenet,resnet18,resnet34,resnet50,"
    "alexnet,densenet121,bn-nin,inception-v3,resnext50-32x4d"
)
_HEAD = f"""# A survey of {{count}} networks

Made by `python -m tools.docs.survey_page`, from a survey on {{device}}.
ONNX Runtime runs Q/DQ graphs unfused: on this CPU, INT8 is slower than FP32, which predicts nothing for a
GPU. Other programs ran on the same two cores, so that times are rough. Where cnnx ships no weights,
stand-ins ran: their accuracy is the published one of FP32, in brackets.

<!-- not run: takes an hour -->
```sh
cnnx survey --models {_SHIPPED} \\
  --precisions fp32,int8 --batches 1,8 --seconds 1 --percentile 50 --out nets
cnnx survey --models {_STAND_INS} \\
  --precisions fp32,int8 --batches 1,8 --seconds 1 --percentile 50 --images 48 \\
  --weights standin --out nets
cnnx report --survey nets --out nets.html
```

The page that the last command writes has these charts with details under the pointer. They follow the
figures of Canziani, Paszke and Culurciello (arXiv:1605.07678); the paper's points are gray.
"""


def main() -> None:
    """Draw the charts and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    report = survey_report(parser.parse_args().folder)
    [drawn, *tables] = report.sections
    devices = {f"{row['runtime']}, {row['device']}" for row in report.rows if row["device"]}
    count = len({row["model"] for row in report.rows})
    parts = [_HEAD.format(count=count, device=" and ".join(sorted(devices)))]
    for chart in drawn.charts:
        file = FOLDER / f"survey-{chart.kind}.svg"
        write_plot(chart, file, width=_WIDTH)
        parts += [f"## {chart.title}", f"{chart.text}", f"![{chart.title}](assets/{file.name})"]
    parts += [markdown(section.blocks, title="## {}") for section in tables]
    write_page(PAGE, "\n\n".join(parts))


if __name__ == "__main__":
    main()
