import torch


def direction(gradients):
    summed = [torch.stack(tensors).sum(dim=0) for tensors in zip(*gradients, strict=True)]
    norm = torch.stack([tensor.norm() for tensor in summed]).norm()
    return [tensor / norm for tensor in summed]
