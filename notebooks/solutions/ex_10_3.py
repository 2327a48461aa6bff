def accumulate(network, batches, loss):
    network.zero_grad()
    for batch in batches:
        loss(network, batch).backward()
