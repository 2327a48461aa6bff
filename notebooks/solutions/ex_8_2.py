def images_seen(config):
    batches = config.iterations * config.batches_per_iteration
    return batches * (config.k + config.m), batches * config.n
