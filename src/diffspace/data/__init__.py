"""Data: where they come from and how they reach a model.

`load_data("digits")`, `load_data("path/to/images", size=64)`, `load_data("latents.npy")` give a `DataSet`;
`batches` feeds it to training; `diffspace.inspection.inspect` measures it.
"""

from diffspace.data.archives import ImageFolder as ImageFolder
from diffspace.data.archives import ImageZip as ImageZip
from diffspace.data.archives import TarShards as TarShards
from diffspace.data.arrays import ArrayFile as ArrayFile
from diffspace.data.augmentation import Augmentation as Augmentation
from diffspace.data.builtin import Checkerboard as Checkerboard
from diffspace.data.builtin import Digits as Digits
from diffspace.data.builtin import EightGaussians as EightGaussians
from diffspace.data.builtin import PointSet as PointSet
from diffspace.data.builtin import SwissRoll as SwissRoll
from diffspace.data.builtin import TwoMoons as TwoMoons
from diffspace.data.dataset import DataSet as DataSet
from diffspace.data.dataset import InMemory as InMemory
from diffspace.data.dataset import Rows as Rows
from diffspace.data.latents import Encoded as Encoded
from diffspace.data.latents import Latents as Latents
from diffspace.data.latents import encode_dataset as encode_dataset
from diffspace.data.loader import Batch as Batch
from diffspace.data.loader import batches as batches
from diffspace.data.preparation import Prepared as Prepared
from diffspace.data.preparation import prepare as prepare
from diffspace.data.preparation import verify as verify
from diffspace.data.sources import ORACLES as ORACLES
from diffspace.data.sources import Source as Source
from diffspace.data.sources import image_source as image_source
from diffspace.data.sources import is_oracle as is_oracle
from diffspace.data.sources import load_data as load_data
from diffspace.data.sources import make_source as make_source
from diffspace.data.sources import named_oracle as named_oracle
from diffspace.data.stored_images import ImageSource as ImageSource
from diffspace.transform import PIXELS as PIXELS
