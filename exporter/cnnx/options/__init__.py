"""Options, each stated once: name, type, default and help reach the command line, Python and the docs.

A verb's options are a frozen dataclass whose fields are made by `option`. `cnnx.cli.options` makes a
command's parameters of them, `takes` a Python function's, and an option that overrides a recipe names the
key that it overrides. Nothing is imported here that `cnnx --help` would wait for.
"""

from cnnx.options.bundles import BenchOptions as BenchOptions
from cnnx.options.bundles import BuildOptions as BuildOptions
from cnnx.options.bundles import CacheOptions as CacheOptions
from cnnx.options.bundles import DiagnoseOptions as DiagnoseOptions
from cnnx.options.bundles import DrawingOptions as DrawingOptions
from cnnx.options.bundles import EngineOptions as EngineOptions
from cnnx.options.bundles import ValidateOptions as ValidateOptions
from cnnx.options.networks import CalibrateOptions as CalibrateOptions
from cnnx.options.networks import ExportOptions as ExportOptions
from cnnx.options.networks import ListOptions as ListOptions
from cnnx.options.networks import MarkdownOptions as MarkdownOptions
from cnnx.options.networks import NetworkOptions as NetworkOptions
from cnnx.options.networks import ShowOptions as ShowOptions
from cnnx.options.option import overrides as overrides
from cnnx.options.option import part_of as part_of
from cnnx.options.option import takes as takes
from cnnx.options.shared import Batch as Batch
from cnnx.options.shared import CommonOptions as CommonOptions
from cnnx.options.shared import MeasuringOptions as MeasuringOptions
from cnnx.options.shared import Precision as Precision
from cnnx.options.shared import ReportOptions as ReportOptions
from cnnx.options.shared import Scales as Scales
from cnnx.options.shared import SourceOptions as SourceOptions
from cnnx.options.surveys import ProofOptions as ProofOptions
from cnnx.options.surveys import SurveyOptions as SurveyOptions
from cnnx.options.surveys import SurveyPlan as SurveyPlan
