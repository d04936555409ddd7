"""The GAN engine: networks, losses, augmentation, training, checkpoints and sampling.

Three numberings of images run through it, each with one name:

- ``batch_index``, 0 to ``gan.batch`` - 1: a sample's index in the global batch of a step. A worker
  holds some of them (:mod:`gemix.gan.data.batch_split`); random numbers are a function of it.
- ``sample_id``, 0, 1, 2, …: step * batch + batch_index, the count of real images shown so far.
- ``dataset_row``, 0 to N - 1: an image of the training set. :mod:`gemix.gan.data.shuffle_order`
  maps sample ids to dataset rows.

A method of training is one class of :mod:`gemix.gan.training.registry`, an adversarial loss one
entry of :mod:`gemix.gan.losses.registry`; :mod:`gemix.gan.testing` holds what every one must pass.
"""
