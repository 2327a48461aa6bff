"""Typical wrong answers to the exercises of notebook 10, each with words of its diagnosis."""


def multiply_adds(maps_in, maps_out, kernel, size):
    return maps_in * maps_out * kernel**2 * size**2 / 1e9


def row_kernel(maps_in, maps_out, kernel, size):
    return 2 * maps_in * maps_out * kernel * size**2 / 1e9


def in_flop(maps_in, maps_out, kernel, size):
    return 2 * maps_in * maps_out * kernel**2 * size**2


def mixed_alone(rate):
    return 60 * 10_000 * 10 * 10 / rate / 86_400


def one_batch(rate):
    return 60 * 10_000 * 16 / rate / 86_400


def in_hours(rate):
    return 60 * 10_000 * 10 * 16 / rate / 3600


def not_cleared(network, batches, loss):
    for batch in batches:
        loss(network, batch).backward()


def all_graphs(network, batches, loss):
    network.zero_grad()
    sum([loss(network, batch) for batch in batches]).backward()


def averaged(network, batches, loss):
    network.zero_grad()
    for batch in batches:
        (loss(network, batch) / len(batches)).backward()


def last_only(network, batches, loss):
    for batch in batches:
        network.zero_grad()
        loss(network, batch).backward()


WRONG = {
    "exercise_10_1": [
        (multiply_adds, "half of what is asked for"),
        (row_kernel, "how many numbers a square kernel has"),
        (in_flop, "in FLOP, not in GFLOP"),
    ],
    "exercise_10_2": [
        (mixed_alone, "the mixed runs alone"),
        (one_batch, "one batch in an iteration"),
        (in_hours, "the unit: days"),
    ],
    "exercise_10_3": [
        (not_cleared, "that of the step before"),
        (all_graphs, "the graphs of 4 batches were alive at once"),
        (averaged, "the mean over the batches"),
        (last_only, "cleared between them"),
    ],
}
