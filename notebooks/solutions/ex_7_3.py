import torch


def multiclass_loss(pixel_scores, labels, image_scores, presence, t, a):
    counts = torch.bincount(labels.flatten(), minlength=len(t))  # N_c over all annotated images, (K,)
    weights = torch.tensor(t) / counts  # (K,)
    log_p = pixel_scores.log_softmax(dim=1).gather(1, labels[:, None])[:, 0]  # true class: (A, K, H, W) -> (A, H, W)
    loss_s = -(weights[labels] * log_p).sum()
    log_p = image_scores.log_softmax(dim=2).gather(2, presence[:, :, None])[:, :, 0]  # true label: (B, R, 2) -> (B, R)
    loss_c = -log_p.mean()  # over images and branches
    return a * loss_s + (1 - a) * loss_c
