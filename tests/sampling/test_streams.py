"""Random streams: what they depend on, and that the numbers are uniform."""

import numpy as np
import pytest
import torch

from xlm_mlm.sampling.streams import GlobalStream, Purpose, SampleStreams, gumbel

PLACES = torch.arange(6).expand(3, 6)


def test_numbers_depend_on_seed_sample_step_purpose_and_place_alone():
    streams, ids = SampleStreams(5), torch.tensor([4, 0, 9])
    whole = streams.uniform(ids, 2, Purpose.TOKEN, PLACES)
    # Another order, fewer rows, fewer places, a fresh object.
    part = SampleStreams(5).uniform(ids[[2, 0]], 2, Purpose.TOKEN, torch.tensor([[3, 1], [5, 0]]))
    assert part.tolist() == [
        [whole[2, 3].item(), whole[2, 1].item()],
        [whole[0, 5].item(), whole[0, 0].item()],
    ]
    for other in (
        SampleStreams(6).uniform(ids, 2, Purpose.TOKEN, PLACES),
        streams.uniform(ids, 3, Purpose.TOKEN, PLACES),
        streams.uniform(ids, 2, Purpose.POSITION, PLACES),
        streams.uniform(ids + 1, 2, Purpose.TOKEN, PLACES),
    ):
        assert not (other == whole).any()


def test_the_global_stream_draws_in_double_precision_too():
    torch.manual_seed(3)
    numbers = GlobalStream().uniform(torch.arange(3), 0, Purpose.TOKEN, PLACES)
    torch.manual_seed(3)
    assert torch.equal(numbers, torch.rand(3, 6, dtype=torch.float64))
    assert SampleStreams(0).uniform(torch.arange(3), 0, Purpose.TOKEN, PLACES).dtype == (
        torch.float64
    )


def test_numbers_are_uniform():
    numbers = SampleStreams(0).uniform(
        torch.arange(100), 0, Purpose.TOKEN, torch.arange(200).expand(100, 200)
    )
    counts = torch.histc(numbers, 20, 0, 1)
    # 20,000 draws in 20 bins: chi-square with 19 degrees of freedom exceeds 43.8 once in 1,000.
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8
    assert numbers.min() >= 0
    assert numbers.max() < 1


def test_the_global_stream_follows_torchs_seed():
    def draw():
        torch.manual_seed(3)
        return GlobalStream().uniform(torch.arange(3), 0, Purpose.TOKEN, PLACES)

    assert torch.equal(draw(), draw())


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "1", True])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(ValueError, match="seed is"):
        SampleStreams(seed)


def test_gumbel_noise_has_its_mean_and_no_infinities():
    noise = gumbel(torch.rand(200_000, dtype=torch.float64))
    # Mean 0.5772, standard deviation pi / sqrt(6): 5 standard errors of the mean.
    assert abs(noise.mean().item() - 0.57722) < 5 * 1.2825 / 200_000**0.5
    assert gumbel(torch.tensor([0.0, 1.0], dtype=torch.float64)).isfinite().all()


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
def test_each_line_is_what_a_generator_of_its_own_gives(seed):
    ids = [3, 0, 2**62]
    got = SampleStreams(seed).uniform(torch.tensor(ids), 9, Purpose.TOKEN, PLACES)
    for line, sample in zip(got, ids, strict=True):
        key = np.array([seed, sample], dtype=np.uint64)
        counter = np.array([0, 9, 1, 0], dtype=np.uint64)
        alone = np.random.Generator(np.random.Philox(key=key, counter=counter)).random(6)
        assert line.tolist() == alone.tolist()


def test_numbers_stay_what_they_were():
    got = SampleStreams(5).uniform(torch.tensor([4]), 2, Purpose.POSITION, PLACES[:1, :3])
    assert got.tolist() == [[0.04942446927352839, 0.8551182787317188, 0.35143354313847286]]


def test_no_samples_need_no_numbers():
    none = SampleStreams(5).uniform(torch.arange(0), 0, Purpose.TOKEN, PLACES[:0])
    assert none.shape == (0, 6)
