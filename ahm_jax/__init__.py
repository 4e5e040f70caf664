"""Self-supervised pre-training for medical image segmentation by adaptive hard masking."""
