"""Training on several ranks, under the module name that scripts written for RadiObject use."""

from radioloader.datasets.factory import create_distributed_dataloader, set_epoch
from radioloader.datasets.gather import gather_cases

__all__ = ["create_distributed_dataloader", "gather_cases", "set_epoch"]
