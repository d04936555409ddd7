"""Class-conditional StyleGAN2-ADA in plain PyTorch; needs torch, NumPy and safetensors alone."""
