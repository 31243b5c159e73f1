"""ResNet-50 on ImageNet by ResNet strikes back's recipe A1: 600 epochs at 224 pixels.

    python main.py --config=rsb_a1 --data_dir=~/tensorflow_datasets

Published: top-1 80.4 %. The rate of each epoch and the losses of 20 steps equal those
of timm's code (`tests/test_recipes.py`); the whole run was not made here.

Windows of training are cut out of the middle square of an image, where the source cuts
them out of the whole one. RandAugment copies pixels where it interpolates, and what
comes in from outside is middle grey where it is the mean colour.

Source: Wightman et al. 2021, table 2, https://arxiv.org/abs/2110.00476; rates at both
ends and the threshold of BCE are those of timm's published arguments
"""

from configs import rsb_a2

options = rsb_a2.options | {
    "mixup_alpha": 0.2,
    "label_smoothing": 0.1,
    "epochs": 600,
    "weight_decay": 0.01,
}
