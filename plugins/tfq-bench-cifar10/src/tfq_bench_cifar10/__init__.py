"""Small trained CIFAR-10 diffusion models, embedded: no network needed to run them."""
