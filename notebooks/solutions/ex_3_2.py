def calling_threshold(t0, t1, share):
    w0, w1 = t0 / (1 - share), t1 / share
    # The derivative of the crowd's loss, -pi w1 / p + (1 - pi) w0 / (1 - p), is 0 at
    # p = pi w1 / (pi w1 + (1 - pi) w0), which is 1/2 where pi w1 = (1 - pi) w0.
    return w0 / (w0 + w1)
