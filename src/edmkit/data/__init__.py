"""Data: where they come from, how they reach a model, and what they propose for it.

`load_data("digits")`, `load_data("path/to/images", size=64)`, `load_data("latents.npy")` give a `DataSet`;
`batches` feeds it to training; `inspect` measures it.
"""

from edmkit.data.arrays import ArrayFile as ArrayFile
from edmkit.data.augmentation import Augmentation as Augmentation
from edmkit.data.batches import Batch as Batch
from edmkit.data.batches import batches as batches
from edmkit.data.dataset import PIXELS as PIXELS
from edmkit.data.dataset import DataSet as DataSet
from edmkit.data.dataset import InMemory as InMemory
from edmkit.data.dataset import Rows as Rows
from edmkit.data.digits import Digits as Digits
from edmkit.data.encoding import Encoded as Encoded
from edmkit.data.encoding import encode as encode
from edmkit.data.folder import ImageFolder as ImageFolder
from edmkit.data.folder import ImageSource as ImageSource
from edmkit.data.folder import ImageZip as ImageZip
from edmkit.data.inspection import Inspection as Inspection
from edmkit.data.inspection import inspect as inspect
from edmkit.data.latents import Latents as Latents
from edmkit.data.manifest import verify as verify
from edmkit.data.oracles import ORACLES as ORACLES
from edmkit.data.oracles import is_oracle as is_oracle
from edmkit.data.oracles import named_oracle as named_oracle
from edmkit.data.points import Checkerboard as Checkerboard
from edmkit.data.points import EightGaussians as EightGaussians
from edmkit.data.points import PointSet as PointSet
from edmkit.data.points import SwissRoll as SwissRoll
from edmkit.data.points import TwoMoons as TwoMoons
from edmkit.data.preparation import Prepared as Prepared
from edmkit.data.preparation import prepare as prepare
from edmkit.data.proposals import Proposal as Proposal
from edmkit.data.proposals import Proposals as Proposals
from edmkit.data.proposals import propose as propose
from edmkit.data.sources import SOURCES as SOURCES
from edmkit.data.sources import Source as Source
from edmkit.data.sources import image_source as image_source
from edmkit.data.sources import load_data as load_data
from edmkit.data.sources import make_source as make_source
from edmkit.data.tar_shards import TarShards as TarShards
