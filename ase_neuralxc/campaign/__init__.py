"""The one resumable task engine, and labelling with it."""

from ase_neuralxc.campaign.cluster import open_scheduler
from ase_neuralxc.campaign.engine import Campaign, RunSummary, task_key
from ase_neuralxc.campaign.labeller import EMTLabeller, Labeller
from ase_neuralxc.campaign.labelling import collect, label_structures, state_from_atoms
from ase_neuralxc.campaign.store import Codec, Failure, JsonCodec

__all__ = [
    "Campaign",
    "Codec",
    "EMTLabeller",
    "Failure",
    "JsonCodec",
    "Labeller",
    "RunSummary",
    "collect",
    "label_structures",
    "open_scheduler",
    "state_from_atoms",
    "task_key",
]
