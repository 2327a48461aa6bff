def weak_scans(hours, n_fa):
    return max(int((60 * hours - 45 * n_fa) // 1.5), 0)
