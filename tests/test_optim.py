"""The authors' optimiser and learning-rate rules."""

from __future__ import annotations

import json

import pytest
import torch

from mixsup_lib.files import MixsupError, SettingError
from mixsup_lib.optim import DivergedError, NormalizedSGD, PlateauSchedule, cosine_schedule


def make_parameters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((4, 3), (5,), (2, 2, 2))]


def set_gradients(parameters, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator) * scale


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).clone()


def make_schedule(lr=0.25, **settings):
    optimizer = NormalizedSGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    return optimizer, PlateauSchedule(optimizer, **settings)


def feed(schedule, losses):
    for loss in losses:
        schedule.step(loss)


@pytest.mark.claim(
    "C3.1-24",
    "SGD with momentum that divides the gradient by its norm",
    ours="the first step has norm lr, for any gradient",
)
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_first_normalised_step_has_norm_lr(scale):
    parameters = make_parameters()
    optimizer = NormalizedSGD(parameters)
    before = flat(parameters)
    set_gradients(parameters, 1, scale)
    gradient = flat([p.grad for p in parameters])
    optimizer.step()
    step = flat(parameters) - before
    assert float(step.norm()) == pytest.approx(0.25, rel=1e-5)
    assert torch.allclose(step, -0.25 * gradient / gradient.norm(), atol=1e-6)


def test_the_norm_is_one_over_all_parameters_of_all_groups():
    first, second = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    optimizer = NormalizedSGD([{"params": [first]}, {"params": [second], "lr": 0.5}], lr=1.0)
    first.grad, second.grad = torch.tensor([3.0]), torch.tensor([4.0])
    optimizer.step()
    assert first.item() == pytest.approx(-3 / 5) and second.item() == pytest.approx(-0.5 * 4 / 5)


@pytest.mark.claim(
    "F-17", "v <- 0.9 v - lr g, theta <- theta + v, no weight decay, lr 0.25 at the start", ours="the same"
)
def test_momentum_follows_the_trajectory_by_hand():
    parameter = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = NormalizedSGD([parameter], lr=0.1, momentum=0.9)
    expected = [(0.94, 1.92), (0.786, 1.848), (0.6474, 1.8832)]
    # v1 = (-.06, -.08); v2 = .9 v1 - (.1, 0) = (-.154, -.072); v3 = .9 v2 - .1 (0, -1) = (-.1386, .0352)
    for gradient, position in zip([(3.0, 4.0), (20.0, 0.0), (0.0, -0.5)], expected, strict=True):
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        assert parameter.tolist() == pytest.approx(position, abs=1e-6)


@pytest.mark.claim(
    "C3.1-25", "Gradients of several training batches are computed in each iteration", ours="10 in the preset paper"
)
def test_the_gradients_of_10_batches_are_summed():
    data = torch.randn(10, 8, 6, generator=torch.Generator().manual_seed(0)).double()
    steps = []
    for summed in (False, True):
        torch.manual_seed(1)
        network = torch.nn.Linear(6, 1).double()
        before = flat(network.parameters())
        losses = [network(batch).pow(2).mean() for batch in data]
        for loss in [sum(losses)] if summed else losses:
            loss.backward()  # accumulates in .grad
        NormalizedSGD(network.parameters()).step()
        steps.append(flat(network.parameters()) - before)
    assert torch.allclose(steps[0], steps[1], atol=1e-12)
    assert float(steps[0].norm()) == pytest.approx(0.25)


@pytest.mark.claim("F-17")
def test_there_is_no_weight_decay():
    still, moving = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    optimizer = NormalizedSGD([still, moving])
    for _ in range(5):
        still.grad, moving.grad = torch.zeros(3), torch.ones(3)
        optimizer.step()
    assert still.tolist() == [1, 1, 1] and float(moving.detach().max()) < 1


def test_a_zero_gradient_leaves_momentum_alone():
    parameter = torch.nn.Parameter(torch.tensor([0.0]))
    optimizer = NormalizedSGD([parameter], lr=1.0, momentum=0.5)
    parameter.grad = torch.tensor([2.0])
    optimizer.step()
    for expected in (-1.5, -1.75):
        parameter.grad = torch.tensor([0.0])
        optimizer.step()
        assert parameter.item() == pytest.approx(expected)


def test_a_gradient_that_is_not_finite_stops_training_and_changes_nothing():
    parameters = make_parameters()
    optimizer = NormalizedSGD(parameters)
    before = flat(parameters)
    for value in (float("nan"), float("inf")):
        set_gradients(parameters, 1)
        parameters[1].grad[2] = value
        with pytest.raises(DivergedError, match="training diverged") as caught:
            optimizer.step()
        assert isinstance(caught.value, MixsupError) and isinstance(caught.value, ArithmeticError)
        assert torch.equal(flat(parameters), before) and not optimizer.state


@pytest.mark.claim(
    "F-18",
    "Plateau rule: every 500 iterations, 245 against 245, ratio 0.99, halved but never below 0.001",
    ours="the same",
)
def test_plateau_halves_at_500_then_grows_the_interval_when_the_next_check_fails_too():
    optimizer, schedule = make_schedule()
    seen = []
    for iteration in range(1, 3001):
        before = (optimizer.param_groups[0]["lr"], schedule.interval, schedule.window, schedule.ratio)
        schedule.step(1.0)  # never falls: every check fails
        after = (optimizer.param_groups[0]["lr"], schedule.interval, schedule.window, schedule.ratio)
        if after != before:
            seen.append((iteration, after[0], after[1], after[2], round(after[3], 6)))
    assert seen == [
        (500, 0.125, 500, 245, 0.99),
        (1000, 0.125, 600, 295, 0.991),
        (1600, 0.0625, 600, 295, 0.991),
        (2200, 0.0625, 700, 345, 0.992),
        (2900, 0.03125, 700, 345, 0.992),
    ]


@pytest.mark.claim("F-18")
@pytest.mark.parametrize(("later", "rate"), [(0.989, 0.25), (0.991, 0.125)])
def test_plateau_asks_for_a_loss_below_99_percent(later, rate):
    optimizer, schedule = make_schedule()
    feed(schedule, [1.0] * 255 + [later] * 245)
    assert optimizer.param_groups[0]["lr"] == rate


@pytest.mark.claim("F-18")
def test_plateau_compares_the_last_245_with_the_245_before_and_nothing_else():
    optimizer, schedule = make_schedule()
    feed(schedule, [1e9] * 10 + [1.0] * 490)  # the first ten do not count, so nothing has fallen
    assert optimizer.param_groups[0]["lr"] == 0.125
    optimizer, schedule = make_schedule()
    feed(schedule, [0.0] * 10 + [1.0] * 245 + [0.9] * 245)
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_plateau_halves_again_when_a_check_passed_in_between():
    optimizer, schedule = make_schedule()
    feed(schedule, [1.0] * 500)  # fails: halved
    feed(schedule, [1.0] * 255 + [0.5] * 245)  # passes
    feed(schedule, [1.0] * 500)  # fails: halved again, the interval stays
    assert optimizer.param_groups[0]["lr"] == 0.0625 and schedule.interval == 500


@pytest.mark.claim("F-18")
def test_plateau_never_goes_below_a_thousandth_nor_the_ratio_above_995():
    optimizer, schedule = make_schedule()
    feed(schedule, [1.0] * 40_000)
    assert optimizer.param_groups[0]["lr"] == 0.001
    assert schedule.ratio == pytest.approx(0.995) and schedule.ratio <= 0.995


def test_plateau_resumes_from_json_in_the_middle_of_an_interval():
    losses = torch.rand(2000, generator=torch.Generator().manual_seed(0)).tolist()
    optimizer, schedule = make_schedule()
    feed(schedule, losses)
    first, first_schedule = make_schedule()
    feed(first_schedule, losses[:777])
    resumed, resumed_schedule = make_schedule(lr=99.0)
    resumed.load_state_dict(first.state_dict())
    resumed_schedule.load_state_dict(json.loads(json.dumps(first_schedule.state_dict())))
    feed(resumed_schedule, losses[777:])
    assert resumed.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] != 0.25
    assert resumed_schedule.state_dict() == schedule.state_dict()


def test_cosine_falls_from_the_start_to_one_percent():
    optimizer = NormalizedSGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
    schedule, rates = cosine_schedule(optimizer, 100), [0.2]
    for _ in range(101):
        schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[50] == pytest.approx((0.2 + 0.002) / 2) and rates[100] == rates[101] == pytest.approx(0.002)
    assert rates[:101] == sorted(rates[:101], reverse=True)


def test_impossible_settings_are_refused():
    for call in (
        lambda: NormalizedSGD(make_parameters(), lr=0.0),
        lambda: NormalizedSGD(make_parameters(), momentum=1.0),
        lambda: NormalizedSGD(make_parameters()).step(),
        lambda: make_schedule(interval=11),
    ):
        with pytest.raises(SettingError):
            call()
