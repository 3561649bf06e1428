"""Data: where they come from and how they reach a model.

`load_data("digits")`, `load_data("path/to/images", size=64)`, `load_data("latents.npy")` give a `DataSet`;
`batches` feeds it to training; `diffspace.inspection.inspect` measures it.
"""

from diffspace.data.archives import ImageFile as ImageFile, ImageFolder as ImageFolder, ImageZip as ImageZip
from diffspace.data.arrays import ArrayFile as ArrayFile
from diffspace.data.augmentation import Augmentation as Augmentation
from diffspace.data.builtin import (
    Checkerboard as Checkerboard,
    Digits as Digits,
    EightGaussians as EightGaussians,
    MNIST5k as MNIST5k,
    PointSet as PointSet,
    SwissRoll as SwissRoll,
    TwoMoons as TwoMoons,
)
from diffspace.data.dataset import Batch as Batch, DataSet as DataSet, batches as batches, fingerprints as fingerprints
from diffspace.data.identity import Fingerprint as Fingerprint, differences as differences
from diffspace.data.latents import Encoded as Encoded, Latents as Latents, encode_dataset as encode_dataset
from diffspace.data.preparation import Prepared as Prepared, prepare as prepare, verify as verify
from diffspace.data.rows import ConditionRows as ConditionRows, InMemory as InMemory, Rows as Rows
from diffspace.data.sources import (
    ORACLES as ORACLES,
    Source as Source,
    image_source as image_source,
    is_oracle as is_oracle,
    load_data as load_data,
    make_source as make_source,
    named_oracle as named_oracle,
)
from diffspace.data.stored_images import ImageSource as ImageSource
from diffspace.data.tar_shards import TarShards as TarShards
from diffspace.files import read_arrays as read_arrays
from diffspace.transform import PIXELS as PIXELS
