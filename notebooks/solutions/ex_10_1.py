def gflop(maps_in, maps_out, kernel, size):
    return 2 * maps_in * maps_out * kernel**2 * size**2 / 1e9
