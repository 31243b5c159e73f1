"""PyTorch's models by our names; runs under PyTorch and its torchvision only.

torchvision's where it has them, then timm's; small images' as these libraries' classes
with another stem; the CIFAR ResNet with its shortcuts and the wide ResNet as their
authors coded them; three small classics as their papers have them, with our names.
"""

import re

import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models
from torchvision.ops import StochasticDepth

TORCHVISION = (
    "alexnet vgg11 vgg13 vgg16 vgg19 vgg11_bn vgg13_bn vgg16_bn vgg19_bn resnet18 "
    "resnet34 resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x8d "
    "resnext101_64x4d wide_resnet50_2 wide_resnet101_2 densenet121 densenet169 "
    "densenet201 densenet161 squeezenet1_1 mobilenet_v2 efficientnet_b0 convnext_tiny "
    "convnext_small convnext_base convnext_large regnet_x_400mf regnet_x_800mf "
    "regnet_x_1_6gf regnet_x_3_2gf regnet_x_8gf regnet_x_16gf regnet_x_32gf "
    "regnet_y_400mf regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf regnet_y_8gf "
    "regnet_y_16gf regnet_y_32gf regnet_y_128gf "
    "mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3 mobilenet_v3_small "
    "mobilenet_v3_large efficientnet_b1 efficientnet_b2 efficientnet_b3 "
    "efficientnet_b4 efficientnet_b5 efficientnet_b6 efficientnet_b7 "
    "efficientnet_v2_s efficientnet_v2_m efficientnet_v2_l "
    "squeezenet1_0 shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 "
    "shufflenet_v2_x2_0 googlenet inception_v3"
).split()
TIMM = {
    "bit_r50x1": "resnetv2_50x1_bit",
    "preact_resnet18": "resnetv2_18",
    "preact_resnet34": "resnetv2_34",
    "resnet50v2": "resnetv2_50",
}
SMALL_STEMS = ["densenet_bc_40_12", "preact_resnet_20", "resnext29_2x4d"]
SMALL_STEMS += ["resnet18_cifar", "densenet121_cifar"]
OTHERS = ["resnet20", "resnet20_project", "resnet32", "resnet56", "wrn_16_2"]
OTHERS += ["wrn_16_4", "wrn_28_10", "lenet5", "nin", "all_cnn_c", *SMALL_STEMS]
# What their papers multiply the losses of auxiliary classifiers with.
AUXILIARY_WEIGHTS = {"googlenet": 0.3, "inception_v3": 0.4}


class CifarBlock(nn.Module):
    """Two 3x3 convolutions, as in github.com/akamaster/pytorch_resnet_cifar10."""

    def __init__(self, channels, planes, stride, project):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if channels != planes and project:
            conv = nn.Conv2d(channels, planes, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(planes))
        elif channels != planes:
            self.shortcut = Pad(planes // 4)

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class Pad(nn.Module):
    """Option A: every second pixel, channels padded with zeros."""

    def __init__(self, sides):
        super().__init__()
        self.sides = sides

    def forward(self, x):
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.sides, self.sides))


class CifarResNet(nn.Module):
    """6n + 2 layers."""

    def __init__(self, blocks, project, num_classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        channels = 16
        for stage, planes in enumerate((16, 32, 64), 1):
            layer = []
            for number in range(blocks):
                stride = 2 if number == 0 and stage > 1 else 1
                layer.append(CifarBlock(channels, planes, stride, project))
                channels = planes
            setattr(self, f"layer{stage}", nn.Sequential(*layer))
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class WideBlock(nn.Module):
    """Pre-activated; the shortcut convolves the activated input where widths differ."""

    def __init__(self, channels, planes, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        if channels != planes:
            self.convShortcut = nn.Conv2d(channels, planes, 1, stride, bias=False)

    def forward(self, x):
        activated = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        differs = hasattr(self, "convShortcut")
        return y + (self.convShortcut(activated) if differs else x)


class WideStage(nn.Module):
    """Blocks under the name `layer`."""

    def __init__(self, blocks, channels, planes, stride):
        super().__init__()
        self.layer = nn.Sequential(
            *(
                WideBlock(planes if i else channels, planes, 1 if i else stride)
                for i in range(blocks)
            )
        )

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    """6n + 4 layers, as in github.com/szagoruyko/wide-residual-networks.

    The names are those of github.com/xternalz/WideResNet-pytorch.
    """

    def __init__(self, blocks, width, num_classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.block1 = WideStage(blocks, 16, 16 * width, 1)
        self.block2 = WideStage(blocks, 16 * width, 32 * width, 2)
        self.block3 = WideStage(blocks, 32 * width, 64 * width, 2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, num_classes)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


class LeNet5(nn.Module):
    """LeNet-5 as it is coded today; what is flattened is in the order H, W, C."""

    def __init__(self, num_classes):
        super().__init__()
        self.stage1_conv = nn.Conv2d(3, 6, 5)
        self.stage2_conv = nn.Conv2d(6, 16, 5)
        self.dense1 = nn.Linear(400, 120)
        self.dense2 = nn.Linear(120, 84)
        self.head = nn.Linear(84, num_classes)

    def forward(self, x):
        x = F.avg_pool2d(torch.tanh(self.stage1_conv(x)), 2)
        x = F.avg_pool2d(torch.tanh(self.stage2_conv(x)), 2)
        x = torch.tanh(self.dense1(x.permute(0, 2, 3, 1).flatten(1)))
        return self.head(torch.tanh(self.dense2(x)))


class Nin(nn.Module):
    """As in gist.github.com/mavenlin/e56253735ef32c3c296d."""

    def __init__(self, num_classes):
        super().__init__()
        self.stage1_conv1 = nn.Conv2d(3, 192, 5, padding=2)
        self.stage1_conv2 = nn.Conv2d(192, 160, 1)
        self.stage1_conv3 = nn.Conv2d(160, 96, 1)
        self.stage2_conv1 = nn.Conv2d(96, 192, 5, padding=2)
        self.stage2_conv2 = nn.Conv2d(192, 192, 1)
        self.stage2_conv3 = nn.Conv2d(192, 192, 1)
        self.stage3_conv1 = nn.Conv2d(192, 192, 3, padding=1)
        self.stage3_conv2 = nn.Conv2d(192, 192, 1)
        self.head = nn.Conv2d(192, num_classes, 1)

    def forward(self, x):
        for conv in self.children():
            if conv is self.stage2_conv1:
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            elif conv is self.stage3_conv1:
                x = F.avg_pool2d(x, 3, 2, ceil_mode=True)
            x = F.relu(conv(x))
        return x.mean((2, 3))


class AllCnnC(nn.Module):
    """As in table 1 of arxiv.org/abs/1412.6806, with strides for its poolings."""

    def __init__(self, num_classes):
        super().__init__()
        self.stage1_conv1 = nn.Conv2d(3, 96, 3, padding=1)
        self.stage1_conv2 = nn.Conv2d(96, 96, 3, padding=1)
        self.stage1_conv3 = nn.Conv2d(96, 96, 3, 2, padding=1)
        self.stage2_conv1 = nn.Conv2d(96, 192, 3, padding=1)
        self.stage2_conv2 = nn.Conv2d(192, 192, 3, padding=1)
        self.stage2_conv3 = nn.Conv2d(192, 192, 3, 2, padding=1)
        self.stage3_conv1 = nn.Conv2d(192, 192, 3)
        self.stage3_conv2 = nn.Conv2d(192, 192, 1)
        self.head = nn.Conv2d(192, num_classes, 1)

    def forward(self, x):
        for conv in self.children():
            x = F.relu(conv(x))
        return x.mean((2, 3))


CLASSICS = {"lenet5": LeNet5, "nin": Nin, "all_cnn_c": AllCnnC}


def create_timm(name, num_classes):
    """Create timm's model of a name of ours."""
    import timm
    from timm.layers import StdConv2d

    model = timm.create_model(TIMM[name], num_classes=num_classes)
    for module in model.modules():
        if isinstance(module, StdConv2d):
            module.eps = 1e-10  # the authors', where timm has 1e-8
    return model


def create_small_stem(name, num_classes):
    """Create a model whose stem is a 3x3 convolution, by what the libraries have."""
    numbers = [int(x) for x in re.findall(r"\d+", name)]
    if name.startswith("preact_resnet_"):
        return create_preactivated((numbers[0] - 2) // 9, num_classes)
    if name.startswith("resnext29_"):
        sizes = {"groups": numbers[1], "width_per_group": numbers[2]}
        block = models.resnet.Bottleneck
        model = models.ResNet(block, [3, 3, 3, 1], num_classes, **sizes)
        model.layer4, model.fc = nn.Identity(), nn.Linear(1024, num_classes)
    elif name.startswith("densenet_bc_"):
        depth, growth = numbers
        blocks = ((depth - 4) // 6,) * 3
        model = models.DenseNet(growth, blocks, 2 * growth, num_classes=num_classes)
        model.features.norm0, model.features.relu0 = nn.Identity(), nn.Identity()
    else:
        model = getattr(models, name.removesuffix("_cifar"))(num_classes=num_classes)
    stem = model.features if hasattr(model, "features") else model
    conv, pool = ("conv0", "pool0") if stem is not model else ("conv1", "maxpool")
    features = getattr(stem, conv).out_channels
    setattr(stem, conv, nn.Conv2d(3, features, 3, 1, 1, bias=False))
    setattr(stem, pool, nn.Identity())
    return model


def create_preactivated(blocks, num_classes):
    """Create He's pre-activated bottlenecks in three stages of timm's ResNet v2."""
    from timm.layers import BatchNormAct2d, create_conv2d
    from timm.models.resnetv2 import ResNetV2

    layers = {"norm_layer": BatchNormAct2d, "conv_layer": create_conv2d}
    sizes = {"channels": (64, 128, 256), "stem_chs": 16, "num_classes": num_classes}
    model = ResNetV2([blocks] * 3, **sizes, **layers)
    model.stem.conv = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
    model.stem.pool = nn.Identity()
    for stage in model.stages:  # the first convolution strides
        first = stage.blocks[0]
        strides = first.conv2.stride, first.conv1.stride
        first.conv1.stride, first.conv2.stride = strides
    return model


def create(name, num_classes):
    """Create a model with dropout and stochastic depth off."""
    if name in TIMM:
        return create_timm(name, num_classes)
    if name in SMALL_STEMS:
        return create_small_stem(name, num_classes)
    if name.startswith("wrn_"):
        depth, width = map(int, name.split("_")[1:])
        return WideResNet((depth - 4) // 6, width, num_classes)
    if name in CLASSICS:
        return CLASSICS[name](num_classes)
    if name in OTHERS:
        depth = int(name.split("_")[0].removeprefix("resnet"))
        return CifarResNet((depth - 2) // 6, "project" in name, num_classes)
    more = {}
    if name in AUXILIARY_WEIGHTS:
        more = {"aux_logits": True, "init_weights": False}
    model = getattr(models, name)(num_classes=num_classes, **more)
    for module in model.modules():
        if isinstance(module, nn.Dropout | StochasticDepth):
            module.p = 0.0
    return model
