"""Training: recipe, loop, averages, checkpoints and the folder that a run leaves."""

from diffspace.train.accumulate import Precision as Precision
from diffspace.train.build import check_data as check_data, make_denoiser as make_denoiser, make_trainer as make_trainer
from diffspace.train.checkpoint import CHECKPOINTS as CHECKPOINTS, Checkpoint as Checkpoint, Checkpoints as Checkpoints
from diffspace.train.defaults import default_config as default_config
from diffspace.train.guard import NoisyBatch as NoisyBatch, NonFinite as NonFinite
from diffspace.train.hooks import Hook as Hook, Measurement as Measurement, check_measurements as check_measurements
from diffspace.train.learning_rate import LearningRate as LearningRate
from diffspace.train.lock import RunLock as RunLock
from diffspace.train.loggers import (
    JSONLines as JSONLines,
    Logger as Logger,
    LogReader as LogReader,
    TensorBoard as TensorBoard,
    WandB as WandB,
)
from diffspace.train.loop import Trainer as Trainer, TrainingStep as TrainingStep
from diffspace.train.overrides import apply_overrides as apply_overrides, read_recipe as read_recipe
from diffspace.train.parallel import Processes as Processes, choose_device as choose_device
from diffspace.train.recipe import (
    FROM_DATA as FROM_DATA,
    DataRecipe as DataRecipe,
    Recipe as Recipe,
    changes as changes,
    make_data_recipe as make_data_recipe,
    make_recipe as make_recipe,
)
from diffspace.train.report import TrainingReport as TrainingReport
from diffspace.train.run import BEST as BEST, LOG as LOG, RECIPE as RECIPE, Run as Run
from diffspace.train.step_random import StepRandom as StepRandom
from diffspace.train.validation import Validation as Validation, ValidationLoss as ValidationLoss
