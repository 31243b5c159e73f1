"""What each family's modules are called in PyTorch: a file, and a `Table`, a family.

A family lists the spellings that are read, of a model by its name; the first is the one
that is written: torchvision's where it has the model.
"""

from cnn.weights.tables import (
    alexnet,
    cifar_resnet,
    convnext,
    densenet,
    efficientnet,
    efficientnet_v2,
    googlenet,
    inception_v3,
    mnasnet,
    mobilenet_v2,
    mobilenet_v3,
    own,
    regnet,
    resnet,
    resnet_v2,
    shufflenet_v2,
    squeezenet,
    vgg,
    wide_resnet,
)

# The first whose pattern a model's name matches is its own; `own` takes what is left.
TABLES = tuple(
    module.TABLE
    for module in (
        cifar_resnet,
        resnet,
        resnet_v2,
        wide_resnet,
        alexnet,
        vgg,
        googlenet,
        inception_v3,
        densenet,
        squeezenet,
        mobilenet_v2,
        mnasnet,
        mobilenet_v3,
        shufflenet_v2,
        efficientnet,
        efficientnet_v2,
        regnet,
        convnext,
        own,
    )
)
