"""The GAN engine: networks, losses, augmentation, training, checkpoints and sampling.

A method of training is one class of :mod:`gemix.gan.training.registry`, an adversarial loss one
entry of :mod:`gemix.gan.losses.registry`; :mod:`gemix.gan.testing` holds what each must pass. The
indices of images (``batch_index``, ``sample_id``, ``dataset_row``) are defined in
:mod:`gemix.gan.data.shuffle_order`.
"""
