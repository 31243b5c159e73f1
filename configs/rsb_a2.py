"""ResNet-50 on ImageNet by ResNet strikes back's recipe A2: 300 epochs at 224 pixels.

    python main.py --config=rsb_a2 --data_dir=~/tensorflow_datasets

Published: top-1 79.8 %. The rate of each epoch and the losses of 20 steps equal those
of timm's code (`tests/test_recipes.py`); the whole run was not made here.

Windows of training are cut out of the middle square of an image, where the source cuts
them out of the whole one. RandAugment copies pixels where it interpolates, and what
comes in from outside is middle grey where it is the mean colour.

Source: Wightman et al. 2021, table 2, https://arxiv.org/abs/2110.00476; rates at both
ends and the threshold of BCE are those of timm's published arguments
"""

from configs import rsb_a3

options = rsb_a3.options | {
    "image_size": 224,
    "repeats_in_batch": 3,
    "policy_magnitude": 7.0,
    "stochastic_depth_rate": 0.05,
    "epochs": 300,
    "learning_rate": 0.005,
    "warmup_start_factor": 1e-4 / 0.005,
    "final_rate_factor": 1e-6 / 0.005,
}
