"""Images of training rows are changed at random, as the seed, the draw and the row say, and nothing else."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from hf_mtl import InputError, MultiTaskTrainer, MultiTaskTrainingArguments
from hf_mtl.data.image_augmentation import ImageAugmentation, read_transforms, transform_of
from hf_mtl.training import sampling
from tests.modality_data import RESNET, images


def shifted(image):
    """Another image, by one random number of torch's."""
    return ImageOps.expand(image, 1, int(torch.randint(0, 256, ())))


@pytest.fixture
def trainer_of(tmp_path, monkeypatch):
    """A trainer whose images are changed by `shifted`, where torchvision may not be installed."""
    monkeypatch.setattr(sampling, "transform_of", lambda listed: shifted)

    def make(name, **values):
        given = {"image_augmentation": ["Shifted"], "max_steps": 6, "save_steps": 3, **values}
        arguments = MultiTaskTrainingArguments(
            output_dir=str(tmp_path / name), report_to="none", disable_tqdm=True, logging_steps=1, **given
        )
        return MultiTaskTrainer({"image": RESNET}, arguments, train_dataset={"side": images()})

    return make


def points(feature):
    return np.asarray(feature["media"]["image"]).tobytes()


def test_an_image_follows_from_seed_draw_source_and_place():
    image = Image.new("L", (4, 4), 7)
    changed = {
        np.asarray(ImageAugmentation(shifted, seed)(image, source, place, draw)).tobytes()
        for seed in (1, 2)
        for source in ("a", "b")
        for place in (0, 1)
        for draw in (0, 1)
    }
    # Of 16 draws of 256 values a few may be equal.
    assert len(changed) >= 13
    again = [np.asarray(ImageAugmentation(shifted, 1)(image, "a", 0, 1)).tobytes() for _ in range(2)]
    assert again[0] == again[1]


def test_other_random_numbers_of_the_run_stay_what_they_were():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = torch.rand(1)
    ImageAugmentation(shifted, 1)(Image.new("L", (4, 4)), "a", 0, 0)
    assert torch.cat([first, torch.rand(1)]).equal(expected)


def test_training_rows_change_with_the_draw_and_rows_that_score_do_not(trainer_of):
    trainer = trainer_of("rows")
    data, places = trainer.train_dataset, np.array([3, 5])
    first, again, later = (data.__getitems__(data.at_draw(places, draw)) for draw in (1, 1, 2))
    assert list(map(points, first)) == list(map(points, again))
    assert all(points(one) != points(other) for one, other in zip(first, later))
    # Whatever shares a batch.
    assert points(data.__getitems__(data.at_draw(places[1:], 1))[0]) == points(first[1])
    scored = trainer.features_of({"side": trainer.mixture.train["side"]})[3]["media"]["image"]
    assert Image.open(io.BytesIO(scored["bytes"])).size == (12, 12)


def test_a_run_that_goes_on_draws_what_it_would_have_drawn(trainer_of):
    whole = trainer_of("whole")
    whole.train()
    broken = trainer_of("broken")
    broken.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-3")
    state = broken.model.state_dict()
    assert all(value.equal(state[name]) for name, value in whole.model.state_dict().items())
    with pytest.raises(InputError, match="image_augmentation"):
        trainer_of("other", image_augmentation=None).train(
            resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-3"
        )


@pytest.mark.parametrize("given", ['[{"RandomCrop"', {"RandomCrop": {}}, [{"A": {}, "B": {}}], [3], [{"A": 3}], "3"])
def test_what_is_no_list_of_transforms_is_refused(given):
    with pytest.raises(InputError, match="image_augmentation"):
        read_transforms(given)


def test_it_needs_a_task_with_images(trainer_of, tmp_path):
    with pytest.raises(InputError, match="no task reads an image"):
        sampling.image_augmentation(
            MultiTaskTrainingArguments(output_dir=str(tmp_path), image_augmentation=["RandomCrop"]), {}
        )


def test_a_tensor_is_no_image():
    with pytest.raises(InputError, match="makes a Tensor of an image"):
        ImageAugmentation(lambda image: torch.zeros(1), 1)(Image.new("L", (4, 4)), "a", 0, 0)


def test_torchvision_does_what_is_named():
    pytest.importorskip("torchvision", reason="needs pip install torchvision")
    steps = [
        {"RandomApply": {"transforms": [{"ColorJitter": {"brightness": 0.5}}], "p": 1.0}},
        {"RandomResizedCrop": {"size": [6, 6], "interpolation": "bicubic"}},
        "RandomHorizontalFlip",
    ]
    augmentation = ImageAugmentation(transform_of(read_transforms(steps)), 1)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 12), dtype=np.uint8))
    first, again, later = (augmentation(image, "a", 0, draw) for draw in (0, 0, 1))
    assert first.size == (6, 6) and first.tobytes() == again.tobytes() != later.tobytes()
    for wrong, message in (
        ([{"RandomCorp": {"size": 3}}], "Did you mean 'RandomCrop'"),
        ([{"RandomCrop": {"sizes": 3}}], "RandomCrop of {'sizes': 3}"),
        (["Lambda"], "no transform of torchvision"),
    ):
        with pytest.raises(InputError, match=message):
            transform_of(wrong)


def test_without_torchvision_it_says_what_to_type(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchvision.transforms", None)
    with pytest.raises(InputError, match="pip install torchvision"):
        transform_of(["RandomHorizontalFlip"])
