"""DINOv2 of a tiny random config against transformers' processor and its model; slow to import, not to run."""

import sys

import pytest
import torch
from torch.nn import functional

from diffspace.metrics import make_extractor
from diffspace.transform import PIXELS


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_dinov2_is_that_of_transformers(tmp_path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "patch_size": 14}
    model = transformers.Dinov2Model(transformers.Dinov2Config(image_size=518, **sizes)).eval()
    model.save_pretrained(tmp_path / "model")
    extractor = make_extractor("dinov2", weights=tmp_path / "model")
    assert (extractor.name, extractor.dim) == ("dinov2-vit-l-14 pillow-bicubic-224", 24)
    pixels = torch.randint(0, 256, (3, 3, 50, 40), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = extractor(PIXELS.forward(pixels))

    # the original code's embeddings of positions: 37 × 37 patches to 16 × 16 with a scale of 16.1/37
    positions = model.embeddings.position_embeddings.data
    grid = positions[:, 1:].reshape(1, 37, 37, 24).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, scale_factor=16.1 / 37, mode="bicubic", recompute_scale_factor=False)
    assert grid.shape[2:] == (16, 16)
    whole = torch.cat([positions[:, :1], grid.flatten(2).mT], 1)
    small = transformers.Dinov2Model(transformers.Dinov2Config(image_size=224, **sizes)).eval()
    small.load_state_dict(model.state_dict() | {"embeddings.position_embeddings": whole})
    processor = transformers.BitImageProcessorPil(
        size={"height": 224, "width": 224},
        do_center_crop=False,
        resample=3,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    prepared = processor(list(pixels.permute(0, 2, 3, 1).numpy()), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        exact = small(prepared).pooler_output
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5)


def test_without_transformers_or_its_files(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r'features "dinov2" requires the package transformers.*'):
        make_extractor("dinov2")
