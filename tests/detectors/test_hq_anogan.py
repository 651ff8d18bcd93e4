"""What is particular to HQ-AnoGAN."""

from toys import Toy

TOY = Toy(
    {
        "width": 4,
        "channel_cap": 32,
        "latent_dim": 32,
        "mapping_layers": 2,
        "backbone": "resnet18",
        "encoder_width": 4,
        "batch_size": 16,
        "r1_weight": None,
        "average_images": None,
        "gan_iterations": 200,
        "encoder_iterations": 300,
        "lr_encoder": 0.002,
        "samples": 256,
    }
)
