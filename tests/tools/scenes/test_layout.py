"""What covers the cells of a picture, and the head that a teacher in training reads it with."""

import math
import random

import torch

from fewstep.embedded.scenes.grammar import NOUNS, parse
from tools.scenes.layout import CLASSES, InTraining, cells_of, layout_loss
from tools.scenes.networks import PATCH, build_networks, build_tokenizer, tokenize
from tools.scenes.pictures import draw
from tools.scenes.workshop import without_head


def test_cells_name_the_noun_whose_box_covers_their_middle() -> None:
    picture = draw(parse("a big cat"), random.Random(0))
    (cat,) = picture.objects
    cells = cells_of(picture)
    assert set(cells.unique().tolist()) == {0, 1 + NOUNS.index("cat")}
    covered = sum(
        cat.left <= 4 * column + 2 < cat.left + cat.width and cat.top <= 4 * row + 2 < cat.top + cat.height
        for row in range(12)
        for column in range(12)
    )
    assert int((cells > 0).sum()) == covered > 0


def test_the_loss_is_that_of_each_cell_in_its_token() -> None:
    cells = torch.randint(CLASSES, (2, 12, 12), generator=torch.Generator().manual_seed(0))
    logits = torch.zeros(2, 36, 4, CLASSES)
    for picture in range(2):
        for row in range(12):
            for column in range(12):
                token, inside = row // 2 * 6 + column // 2, row % 2 * 2 + column % 2
                logits[picture, token, inside, cells[picture, row, column]] = 30.0
    assert float(layout_loss(logits, cells)) < 1e-6
    assert math.isclose(float(layout_loss(0 * logits, cells)), math.log(CLASSES), rel_tol=1e-5)


def test_the_head_reads_a_block_and_is_left_behind() -> None:
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    networks = build_networks(tokenizer)
    trained = InTraining(networks, patch=PATCH)
    cond = networks.encode(tokenize(tokenizer, ["a cat", ""]))
    x, sigma = torch.randn(2, 8, 12, 12), torch.tensor([0.3, 0.9])
    velocity, layout = trained.velocity_and_layout(x, sigma, cond)
    assert layout.shape == (2, 36, 4, CLASSES)
    assert torch.equal(velocity, networks.velocity(x, sigma, cond))
    layout.sum().backward()  # type: ignore[no-untyped-call]
    assert networks.transformer.transformer_blocks[3].ff.net[2].weight.grad is not None
    assert networks.transformer.transformer_blocks[4].ff.net[2].weight.grad is None
    assert without_head(trained.state_dict()).keys() == networks.state_dict().keys()
