"""From arrays to batches: packing, batching, group encoding."""

from addloss_kit.data.batching import make_dataset as make_dataset
from addloss_kit.data.encoding import encode_groups as encode_groups
from addloss_kit.data.packing import pack_inputs as pack_inputs
from addloss_kit.data.packing_streams import pack_dataset as pack_dataset
from addloss_kit.data.parquet import parquet_dataset as parquet_dataset

__all__ = [
    "encode_groups",
    "make_dataset",
    "pack_dataset",
    "pack_inputs",
    "parquet_dataset",
]
