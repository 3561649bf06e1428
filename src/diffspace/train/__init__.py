"""Training: recipe, loop, averages, checkpoints and the folder that a run leaves."""

from diffspace.train.accumulate import Precision as Precision
from diffspace.train.build import check_data as check_data
from diffspace.train.checkpoint import Checkpoints as Checkpoints
from diffspace.train.defaults import default_config as default_config, default_noise as default_noise
from diffspace.train.hooks import Hook as Hook, Measurement as Measurement, check_measurements as check_measurements
from diffspace.train.loggers import (
    JSONLines as JSONLines,
    Logger as Logger,
    TensorBoard as TensorBoard,
    WandB as WandB,
    read_log as read_log,
)
from diffspace.train.loop import (
    LearningRate as LearningRate,
    NonFinite as NonFinite,
    Trainer as Trainer,
    TrainingStep as TrainingStep,
)
from diffspace.train.overrides import apply_overrides as apply_overrides, read_recipe as read_recipe
from diffspace.train.parallel import (
    Processes as Processes,
    choose_device as choose_device,
    started_together as started_together,
)
from diffspace.train.recipe import (
    FROM_DATA as FROM_DATA,
    Recipe as Recipe,
    changes as changes,
    make_data_recipe as make_data_recipe,
    make_recipe as make_recipe,
    of_run as of_run,
)
from diffspace.train.report import TrainingReport as TrainingReport
from diffspace.train.run import Run as Run
from diffspace.train.run_folder import LOG as LOG, RECIPE as RECIPE
from diffspace.train.step_random import StepRandom as StepRandom
from diffspace.train.validation import Validation as Validation
