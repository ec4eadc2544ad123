"""Metrics of whole sets: FID, KID, Inception Score, PRDC, Vendi, LPIPS."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fewstep.scores import score_folder
from fewstep.scores.networks.inception import INPUT_SIZE, Inception, resize_clean
from fewstep.scores.networks.lpips import load_lpips, own_names
from fewstep.scores.networks.preprocessing import IMAGENET, squashed
from fewstep.scores.statistics.diversity import inception_score, vendi_score
from fewstep.scores.statistics.frechet import frechet_distance
from fewstep.scores.statistics.kernel import kernel_distance, kernel_distance_of_subsets
from fewstep.scores.statistics.prdc import prdc
from tools.originals.environment import original, told
from tools.originals.finding import Finding, relative

_PICTURES, _SIZE = 24, (150, 110)
_WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"


def findings(folder: Path) -> Iterator[Finding]:
    """Run every original of this file.

    Args:
        folder: For pictures and weights.
    """
    real, drawn = (_pictures(folder / name, seed) for seed, name in enumerate(("real", "drawn")))
    state = _inception(folder / "inception" / _WEIGHTS)
    yield from _pytorch_fid(real, drawn, folder / "inception", state)
    yield from _torch_fidelity(real, drawn, folder / "inception")
    yield from _clean_fid(real, drawn, folder / "inception", state)
    yield from _features()
    yield _lpips()


def _pictures(folder: Path, seed: int) -> Path:
    """Soft random pictures: smooth enough that a resize matters and not only its noise."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(_PICTURES):
        coarse = random.integers(0, 256, (12 + 4 * seed, 16, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(_SIZE, Image.Resampling.BICUBIC).save(folder / f"{number:03d}.png")
    return folder


def _inception(file: Path) -> dict[str, Tensor]:
    """Random weights that keep the scale of what goes through, in the form of the published file."""
    generator = torch.Generator().manual_seed(0)
    network = Inception()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            scale = (2 / module.weight[0].numel()) ** 0.5
            module.weight.data = torch.randn(module.weight.shape, generator=generator) * scale
    network.fc.weight.data = torch.randn(network.fc.weight.shape, generator=generator) * 0.1
    state = {name: value.detach().clone() for name, value in network.state_dict().items()}
    file.parent.mkdir(parents=True)
    torch.save(state, file)
    return state


def _ours(metric: str, real: Path, drawn: Path, source: Path, **settings: Any) -> float:
    chosen = {"source": str(source), "allow_pickle": True, **settings}
    if metric not in ("inception_score", "vendi"):
        chosen["reference"] = str(real)
    found: dict[str, float] = score_folder(drawn, [metric], settings={metric: chosen})
    return found[metric]


def _pytorch_fid(real: Path, drawn: Path, source: Path, state: Mapping[str, Tensor]) -> Iterator[Finding]:
    vars(original("pytorch_fid.inception"))["load_state_dict_from_url"] = lambda *_, **__: dict(state)
    theirs = original("pytorch_fid.fid_score").calculate_fid_given_paths(
        [str(real), str(drawn)], 8, torch.device("cpu"), 2048, num_workers=0
    )
    ours = _ours("fid", real, drawn, source, extractor="inception-torch")
    yield relative("fid", told("pytorch-fid"), "extractor=inception-torch, two folders", ours, float(theirs))


def _torch_fidelity(real: Path, drawn: Path, source: Path) -> Iterator[Finding]:
    theirs = original("torch_fidelity").calculate_metrics(
        input1=str(drawn),
        input2=str(real),
        cuda=False,
        isc=True,
        fid=True,
        kid=True,
        feature_extractor_weights_path=str(source / _WEIGHTS),
        isc_splits=1,
        kid_subsets=2,
        kid_subset_size=_PICTURES,
        cache=False,
        verbose=False,
    )
    name = told("torch-fidelity")
    ours = _ours("fid", real, drawn, source, extractor="inception-tf1")
    yield relative("fid", name, "extractor=inception-tf1, two folders", ours, theirs["frechet_inception_distance"])
    theirs_kid = 1000 * theirs["kernel_inception_distance_mean"]
    whole = "extractor=inception-tf1, two folders, subsets of all pictures"
    for metric in ("kid", "kid_subsets"):
        further = {"subsets": 2} if metric == "kid_subsets" else {}
        ours = _ours(metric, real, drawn, source, extractor="inception-tf1", **further)
        yield relative(metric, name, whole, ours, theirs_kid)
    ours = _ours("inception_score", real, drawn, source, splits=1)
    yield relative("inception_score", name, "a folder, one split", ours, theirs["inception_score_mean"])


def _clean_fid(real: Path, drawn: Path, source: Path, state: Mapping[str, Tensor]) -> Iterator[Finding]:
    network = Inception().eval()
    network.load_state_dict(dict(state))
    fid = original("cleanfid.fid")
    model = torch.no_grad()(lambda pixels: network((pixels - 128) / 128))
    arguments = {"mode": "clean", "num_workers": 0, "batch_size": 8, "device": torch.device("cpu"), "verbose": False}
    theirs = fid.compute_fid(str(drawn), str(real), custom_feat_extractor=model, use_dataparallel=False, **arguments)
    ours = _ours("fid", real, drawn, source, extractor="inception")
    yield relative("fid", told("clean-fid"), "extractor=inception, two folders", ours, float(theirs))


def _features() -> Iterator[Finding]:
    random = np.random.default_rng(2)
    real, drawn = random.normal(size=(300, 24)), random.normal(size=(250, 24)) * 1.1 + 0.1
    theirs = original("prdc").compute_prdc(real_features=real, fake_features=drawn, nearest_k=5)
    ours = prdc(torch.from_numpy(real), torch.from_numpy(drawn), k=5)
    worst = max(abs(getattr(ours, key) - value) for key, value in theirs.items())
    yield Finding("prdc", told("prdc"), "random features, the worst of four figures", f"{worst:.1e} absolute")
    score = float(original("vendi_score.vendi").score_dual(drawn, normalize=True))
    yield relative("vendi", told("vendi-score"), "random features", vendi_score(torch.from_numpy(drawn)), score)

    fidelity, name = original("torch_fidelity.metric_isc"), told("torch-fidelity")
    logits = torch.randn(200, 50, generator=torch.Generator().manual_seed(1)) * 3
    split = fidelity.isc_features_to_metric(logits, splits=10, shuffle=False)["inception_score_mean"]
    yield relative("inception_score", name, "random logits, 10 splits", inception_score(logits, splits=10), split)
    clean, name = original("cleanfid.fid"), told("clean-fid")
    a, b = torch.from_numpy(real), torch.from_numpy(drawn)
    moments = [part for rows in (real, drawn) for part in (rows.mean(0), np.cov(rows, rowvar=False))]
    yield relative("fid", name, "random features", frechet_distance(a, b), float(clean.frechet_distance(*moments)))
    theirs_kid = 1000 * float(clean.kernel_distance(real[:250], drawn, num_subsets=1, max_subset_size=250))
    yield relative("kid", name, "random features, one subset of all", kernel_distance(a[:250], b), theirs_kid)
    rows = torch.arange(250)
    ours_kid = kernel_distance_of_subsets(a[:250], b, subsets=[(rows, rows)])
    yield relative("kid_subsets", name, "random features, one subset of all", ours_kid, theirs_kid)
    picture = np.random.default_rng(6).integers(0, 256, (110, 150, 3), dtype=np.uint8)
    resized = original("cleanfid.resize").make_resizer("PIL", False, "bicubic", (INPUT_SIZE, INPUT_SIZE))(picture)
    pixels = resize_clean(Image.fromarray(picture)).permute(1, 2, 0) * 128 + 128
    largest = float((pixels - torch.from_numpy(resized)).abs().max())
    yield Finding("fid", name, "the resize of extractor=inception, a noisy picture", f"{largest:.1e} of 255 at most")


def _lpips() -> Finding:
    torch.manual_seed(3)
    theirs = original("lpips").LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    ours = load_lpips(own_names(theirs.state_dict()), source="lpips")
    pictures = [Image.fromarray(np.random.default_rng(s).integers(0, 256, (64, 64, 3), dtype=np.uint8)) for s in (4, 5)]
    with torch.no_grad():
        one, other = ours(torch.stack([squashed(picture, 64, IMAGENET) for picture in pictures]))
        plain = [torch.from_numpy(np.array(p)).permute(2, 0, 1)[None].float() / 127.5 - 1 for p in pictures]
        distance = float(theirs(*plain))
    found = float((one.double() - other.double()).square().sum())
    return relative("lpips", told("lpips"), "two pictures, its own heads on a random trunk", found, distance)
