def repaired_a(a, P):
    # a' / P : (1 - a') = a : (1 - a)
    return a * P / (a * P + 1 - a)
