"""What covers the cells of a picture, and the head that a teacher in training reads it with."""

import itertools
import math
import random

import torch

from fewstep.embedded.scenes.grammar import BACKGROUNDS, NOUNS, TINTS, draw_scene, parse
from tools.scenes.classes import NO_CLASS
from tools.scenes.heads import InTraining, without_heads
from tools.scenes.layout import ALL_SIDES, ASPECTS, CLASSES, cells_of, layout_loss
from tools.scenes.networks import PATCH, build_networks, build_tokenizer, tokenize
from tools.scenes.pictures import draw


def test_cells_name_what_covers_their_middle_and_which_part_of_it() -> None:
    picture = draw(parse("a big purple cat, on pink, shaded"), random.Random(0))
    (cat,) = picture.objects
    told = dict(zip(ASPECTS, cells_of(picture), strict=True))
    covered = {
        (row, column)
        for row in range(12)
        for column in range(12)
        if cat.left <= 4 * column + 2 < cat.left + cat.width and cat.top <= 4 * row + 2 < cat.top + cat.height
    }
    assert covered
    for row, column in itertools.product(range(12), repeat=2):
        own = {name: int(values[row, column]) for name, values in told.items()}
        if (row, column) in covered:
            assert (own["noun"], own["background"]) == (1 + NOUNS.index("cat"), NO_CLASS)
            assert (own["row"], own["column"]) == (row - cat.top // 4, column - cat.left // 4)
            assert (own["side"], own["tint"], own["style"]) == (len(ALL_SIDES) - 1, 1 + TINTS.index("purple"), 1)
        else:
            assert own == {**dict.fromkeys(ASPECTS, NO_CLASS), "noun": 0, "background": BACKGROUNDS.index("pink")}


def test_the_loss_is_that_of_each_cell_in_its_token() -> None:
    rng = random.Random(1)
    cells = torch.stack([cells_of(draw(draw_scene(rng), rng)) for _ in range(2)])
    logits, told = torch.zeros(2, 36, 4, CLASSES), 0.0
    for picture, row, column in itertools.product(range(2), range(12), range(12)):
        token, inside = row // 2 * 6 + column // 2, row % 2 * 2 + column % 2
        first = 0
        for classes, number in zip(ASPECTS.values(), cells[picture, :, row, column].tolist(), strict=True):
            if number != NO_CLASS:
                logits[picture, token, inside, first + number] = 30.0
                told += math.log(classes)
            first += classes
    assert float(layout_loss(logits, cells)) < 1e-6
    assert math.isclose(float(layout_loss(0 * logits, cells)), told / 288, rel_tol=1e-5)


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
    assert without_heads(trained.state_dict()).keys() == networks.state_dict().keys()
