def react(ok, failed_before, rate, interval, ratio):
    if ok:
        return False, rate, interval, ratio
    if not failed_before:
        return True, max(rate / 2, 0.001), interval, ratio
    return False, rate, interval + 100, min(ratio + 0.001, 0.995)
