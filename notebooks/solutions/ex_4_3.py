def leaks(select, masks, weak):
    expected = set(select(masks))  # in whatever order
    for value in (0, 1):  # no tumour at all, then nothing but tumour
        spoiled = dict(masks)
        for patient in weak:
            spoiled[patient] = masks[patient] * 0 + value
        if set(select(spoiled)) != expected:
            return True
    return False
