"""The PyTorch contender of predict.py.

python torch_predict.py draw MODEL WEIGHTS
python torch_predict.py classify MODEL WEIGHTS FOLDER CSV SIZE WORKERS BATCH \
    default|channels_last
"""

import csv
import sys
from pathlib import Path

import torch
import torchvision
from PIL import Image
from torchvision import transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Files(torch.utils.data.Dataset):
    """The images of a folder, as torchvision's models take them."""

    def __init__(self, folder: str, size: int) -> None:
        """List the files."""
        self.paths = sorted(map(str, Path(folder).iterdir()))
        self.transform = transforms.Compose(
            [
                transforms.Resize(size * 8 // 7),
                transforms.CenterCrop(size),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        """Count the files."""
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        """Read one image, float32 [3, size, size]."""
        return self.transform(Image.open(self.paths[index]).convert("RGB"))


def draw(name: str, path: str) -> None:
    """Draw weights, with running statistics of noise, and save them."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, 224, 224))
    torch.save(model.state_dict(), path)


def classify(name: str, weights: str, folder: str, target: str, *rest: str) -> None:
    """Classify a folder's images and write the five most probable classes of each."""
    size, workers, batch_size = map(int, rest[:3])
    layout = torch.contiguous_format
    if rest[3] == "channels_last":
        layout = torch.channels_last
    model = torchvision.models.get_model(name, weights=None).eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device, memory_format=layout)
    files = Files(folder, size)
    loader = torch.utils.data.DataLoader(files, batch_size, num_workers=workers)
    rows = []
    with torch.inference_mode():
        for images in loader:
            images = images.to(device, memory_format=layout)
            best = model(images).softmax(1).topk(5)
            for values, classes in zip(
                best.values.cpu(), best.indices.cpu(), strict=True
            ):
                pairs = zip(classes.tolist(), values.tolist(), strict=True)
                cells = [x for k, p in pairs for x in (k, f"{p:.6f}")]
                rows.append([files.paths[len(rows)], *cells])
    with open(target, "w", newline="") as file:
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    {"draw": draw, "classify": classify}[sys.argv[1]](*sys.argv[2:])
