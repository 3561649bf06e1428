"""Data: where they come from and how they reach a model.

`load_data("digits")`, `load_data("path/to/images", size=64)`, `load_data("latents.npy")` give a `DataSet`;
`batches` feeds it to training; `diffspace.inspection.inspect` measures it.
"""

from diffspace.data.arrays import ArrayFile as ArrayFile
from diffspace.data.augmentation import Augmentation as Augmentation
from diffspace.data.batches import Batch as Batch
from diffspace.data.batches import batches as batches
from diffspace.data.dataset import PIXELS as PIXELS
from diffspace.data.dataset import DataSet as DataSet
from diffspace.data.dataset import InMemory as InMemory
from diffspace.data.dataset import Rows as Rows
from diffspace.data.digits import Digits as Digits
from diffspace.data.encoding import Encoded as Encoded
from diffspace.data.encoding import encode as encode
from diffspace.data.folder import ImageFolder as ImageFolder
from diffspace.data.folder import ImageSource as ImageSource
from diffspace.data.folder import ImageZip as ImageZip
from diffspace.data.latents import Latents as Latents
from diffspace.data.manifest import verify as verify
from diffspace.data.oracles import ORACLES as ORACLES
from diffspace.data.oracles import is_oracle as is_oracle
from diffspace.data.oracles import named_oracle as named_oracle
from diffspace.data.points import Checkerboard as Checkerboard
from diffspace.data.points import EightGaussians as EightGaussians
from diffspace.data.points import PointSet as PointSet
from diffspace.data.points import SwissRoll as SwissRoll
from diffspace.data.points import TwoMoons as TwoMoons
from diffspace.data.preparation import Prepared as Prepared
from diffspace.data.preparation import prepare as prepare
from diffspace.data.sources import Source as Source
from diffspace.data.sources import image_source as image_source
from diffspace.data.sources import load_data as load_data
from diffspace.data.sources import make_source as make_source
from diffspace.data.tar_shards import TarShards as TarShards
