"""The paper, as tensors in and tensors out. PAPER.md maps each equation to its function and its test.

B batch, C h w latent, L tokens, D text width, T = 1000 times.

A network is a noise predictor, `eps = net(z, t, c, gamma=None, w=None)`: z [B, C, h, w], t [B] (an index, or a
fractional time), c [B, L, D] or None, gamma [B] or None. `gamma=None` means gamma = 1.
"""
