def skip_crops(depth):
    p, s = 0, 1
    encoder = []
    for _ in range(depth):
        p += 2 * s  # two 3x3 convolutions
        encoder.append(p)
        p, s = p + s / 2, 2 * s  # max-pool
    p += 2 * s  # bottom
    crops = []
    for before in reversed(encoder):
        s = s / 2  # upsampling
        p += s / 2  # 2x2 convolution
        crops.append(int((p - before) / s))
        p += 2 * s  # two 3x3 convolutions
    return crops
