"""Training: recipe, loop, averages, checkpoints and the folder that a run leaves."""

from edmkit.train.checkpoint import Checkpoint as Checkpoint
from edmkit.train.checkpoint import Checkpoints as Checkpoints
from edmkit.train.checkpoint import read_checkpoint as read_checkpoint
from edmkit.train.checkpoint import write_checkpoint as write_checkpoint
from edmkit.train.defaults import default_config as default_config
from edmkit.train.ema import EMA as EMA
from edmkit.train.ema import ema_beta as ema_beta
from edmkit.train.engine import Progress as Progress
from edmkit.train.engine import Schedule as Schedule
from edmkit.train.engine import Trainer as Trainer
from edmkit.train.lock import RunLock as RunLock
from edmkit.train.recipe import FROM_DATA as FROM_DATA
from edmkit.train.recipe import DataRecipe as DataRecipe
from edmkit.train.recipe import Recipe as Recipe
from edmkit.train.recipe import apply_overrides as apply_overrides
from edmkit.train.recipe import make_data_recipe as make_data_recipe
from edmkit.train.recipe import make_recipe as make_recipe
from edmkit.train.recipe import parse_override as parse_override
from edmkit.train.recipe import read_recipe as read_recipe
from edmkit.train.run import RECIPE as RECIPE
from edmkit.train.run import Report as Report
from edmkit.train.run import Run as Run
from edmkit.train.run import choose_device as choose_device
