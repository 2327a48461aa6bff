def smallest_input(output, depth):
    bottom = 5  # what the last max-pool leaves: the two convolutions of the bottom need at least 5 pixels
    while True:
        n, m = bottom, bottom - 4  # before and after the bottom's convolutions
        for _ in range(depth):
            n = 2 * n + 4  # backwards to the input: undo the max-pool and two convolutions
            m = 2 * m - 5  # on to the output: upsampling, 2x2 convolution, two convolutions
        if m >= output:
            return n
        bottom += 1
