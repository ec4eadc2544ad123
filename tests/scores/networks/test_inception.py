import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fewstep.errors import CheckpointError, ConfigError
from fewstep.scores.convert import convert
from fewstep.scores.metric import Picture, PromptItem
from fewstep.scores.networks.inception import (
    INPUT_SIZE,
    Inception,
    Pool,
    load_inception,
    own_names,
    pooled,
    resize_clean,
    resize_tf1,
    resize_torch,
)
from tests.scores.tiny_pictures import features_of, metric_of

RECORDED = json.loads((Path(__file__).parent / "inception.json").read_text(encoding="utf-8"))
PIXELS = json.loads((Path(__file__).parent / "inception_pixels.json").read_text(encoding="utf-8"))


def wave(name: str, shape: tuple[int, ...], place: int) -> Tensor:
    """Weights from cosines, the same on every machine, at the scale of a trained network."""
    count = int(np.prod(shape))
    values = np.cos(np.arange(count) * (0.37 + 0.011 * (place % 53)) + place)
    if name.endswith("running_var"):
        values = 1 + 0.3 * values
    elif name.endswith("bn.weight"):
        values = 1 + 0.2 * values
    elif name.endswith("conv.weight"):
        values = values * (3.0 / np.prod(shape[1:])) ** 0.5
    else:
        values = 0.1 * values
    return torch.tensor(values.reshape(shape), dtype=torch.float32)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in Inception().state_dict().items()}
    names = sorted(name for name in shapes if not name.endswith("num_batches_tracked"))
    return {name: wave(name, shapes[name], place) for place, name in enumerate(names)}


def picture() -> Image.Image:
    y, x = np.mgrid[0:48, 0:40]
    return Image.fromarray(np.stack([(x * 6) % 256, (y * 5) % 256, (x * y) % 256], -1).astype(np.uint8))


def test_features_are_those_recorded_from_torch_fidelity(weights: dict[str, Tensor]) -> None:
    features = load_inception(weights, source="test")(resize_tf1(picture())[None])[0]
    # another order of additions moves the features in the sixth digit
    assert features[RECORDED["columns"]].tolist() == pytest.approx(RECORDED["features"], abs=2e-5)
    assert float(features.double().norm()) == pytest.approx(RECORDED["norm"], rel=1e-5)


def test_the_average_of_a_border_pixel_leaves_the_padding_out() -> None:
    # the corner of a constant picture: four ones of a window of nine
    assert pooled(torch.ones(1, 1, 4, 4), Pool.MEAN)[0, 0, 0, 0] == 1.0


PYTORCH_FID = (
    ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"),
    ("Conv2d_3b_1x1", "Conv2d_4a_3x3"),
    ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
)


def test_a_saved_pytorch_fid_module_is_read_by_its_numbered_names(weights: dict[str, Tensor]) -> None:
    numbers = {name: f"blocks.{i}.{j}" for i, block in enumerate(PYTORCH_FID) for j, name in enumerate(block)}
    numbered = {
        numbers[name.partition(".")[0]] + "." + name.partition(".")[2]: value
        for name, value in weights.items()
        if not name.startswith("fc.")
    }
    assert set(own_names(numbered)) == {name for name in weights if not name.startswith("fc.")}
    assert (
        own_names(numbered)["Mixed_7c.branch3x3dbl_3b.conv.weight"] is weights["Mixed_7c.branch3x3dbl_3b.conv.weight"]
    )


def test_a_checkpoint_with_a_tensor_missing_is_refused_by_name(weights: dict[str, Tensor]) -> None:
    broken = {name: value for name, value in weights.items() if name != "Mixed_6e.branch1x1.bn.weight"}
    with pytest.raises(
        CheckpointError, match=r"fid\.pth does not hold .* the first is Mixed_6e\.branch1x1\.bn\.weight"
    ):
        load_inception(broken, source="fid.pth")


def test_torchvisions_inception_is_refused(weights: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"the first is AuxLogits\.conv0\.conv\.weight"):
        load_inception({**weights, "AuxLogits.conv0.conv.weight": torch.zeros(1)}, source="torchvision")


def ramp(width: int) -> Image.Image:
    """A picture that grows by 8 per column."""
    row = np.arange(width, dtype=np.uint8) * 8
    return Image.fromarray(np.broadcast_to(row[None, :, None], (width, width, 3)).copy())


def test_tensorflows_resize_of_a_ramp_samples_at_multiples_of_the_scale() -> None:
    position = (np.arange(INPUT_SIZE) * (20 / INPUT_SIZE)).clip(max=19)
    expected = (8 * position - 128) / 128
    assert resize_tf1(ramp(20))[0, 5].numpy() == pytest.approx(expected, abs=1e-5)


def test_pytorch_fids_resize_of_a_ramp_samples_at_pixel_centres() -> None:
    position = ((np.arange(INPUT_SIZE) + 0.5) * (20 / INPUT_SIZE) - 0.5).clip(0, 19)
    expected = 2 * (8 * position / 255) - 1
    assert resize_torch(ramp(20))[0, 5].numpy() == pytest.approx(expected, abs=1e-5)


def test_the_clean_resize_averages_away_what_is_finer_than_its_pixels() -> None:
    board = np.indices((598, 598)).sum(0) % 2 * 255
    small = resize_clean(Image.fromarray(np.repeat(board[:, :, None], 3, 2).astype(np.uint8)))
    # away from the border every pixel is the mean of black and white, 127.5, and is not rounded to a byte
    assert float((small[:, 4:-4, 4:-4] - (127.5 - 128) / 128).abs().max()) < 1e-3


def test_the_clean_resize_stays_within_the_bytes_where_bicubic_weights_overshoot() -> None:
    edge = np.zeros((80, 80, 3), dtype=np.uint8)
    edge[:, 40:] = 255
    small = resize_clean(Image.fromarray(edge))
    assert (float(small.min()), float(small.max())) == (-1.0, 127 / 128)


@pytest.mark.parametrize("resize", [resize_clean, resize_torch, resize_tf1])
def test_a_prepared_picture_has_the_stored_pixels(resize) -> None:  # type: ignore[no-untyped-def]
    rows, columns = [0, 37, 150, 298], [0, 80, 211, 298]
    prepared = resize(picture())[:, rows][:, :, columns]
    assert prepared.flatten().tolist() == pytest.approx(PIXELS[resize.__name__], abs=1e-5)


def test_a_pickled_checkpoint_is_converted_once_and_gives_the_same_features(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    published = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(weights, published)
    with pytest.raises(ConfigError, match=r"fewstep evaluate convert fid .* --allow-pickle"):
        metric_of("fid", source=str(published)).check([])
    folder = convert("fid", str(published), tmp_path / "inception", allow_pickle=True)
    metric = metric_of("fid", source=str(folder), extractor="inception-tf1")
    metric.check([])
    metric.load(torch.device("cpu"))
    picture().save(tmp_path / "a.png")
    features = features_of(metric, [Picture(tmp_path / "a.png", PromptItem("p", ""), seed=0)])[0]
    assert features[RECORDED["columns"]].tolist() == pytest.approx(RECORDED["features"], abs=2e-5)
