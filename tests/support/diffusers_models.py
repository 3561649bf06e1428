"""Small random models of diffusers, and loops over its schedulers as its pipelines make them."""

import copy

import torch

UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "attention_head_dim": 8,
}
BLOCKS = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
TEXT_BLOCKS = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}
TRANSFORMER = {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 2,
    "num_attention_heads": 2,
}


def make(class_name, dtype, **options):
    """A model of diffusers with random weights."""
    import diffusers  # not installed everywhere

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(diffusers, class_name)(**options).eval().to(dtype)
    # without training the time hardly matters; with these it does
    for name, parameter in model.named_parameters():
        if "time_emb" in name or "emb.timestep" in name:
            parameter.data *= 3
    return model


def unet(dtype=torch.float64, **options):
    """A `UNet2DModel` of three channels and 8×8 pixels."""
    return make("UNet2DModel", dtype, **UNET | BLOCKS | {"in_channels": 3, "out_channels": 3} | options)


def text_unet(dtype=torch.float64, **options):
    """A `UNet2DConditionModel` of four channels, on text embeddings of 12 channels."""
    text = {"attention_head_dim": 4, "cross_attention_dim": 12}
    return make("UNet2DConditionModel", dtype, **UNET | TEXT_BLOCKS | text | options)


def dit(dtype=torch.float64):
    """A class-conditional DiT of four channels with a learned variance; class 10 is the null class."""
    options = {"attention_head_dim": 8, "norm_num_groups": 4, "num_embeds_ada_norm": 10}
    return make("DiTTransformer2DModel", dtype, **TRANSFORMER | options)


def sd3(dtype=torch.float64):
    """The transformer of Stable Diffusion 3, which predicts the flow."""
    text = {"joint_attention_dim": 12, "caption_projection_dim": 16, "pooled_projection_dim": 6}
    options = {"attention_head_dim": 8, "out_channels": 4, "pos_embed_max_size": 8}
    return make("SD3Transformer2DModel", dtype, **TRANSFORMER | text | options)


def pixart(dtype=torch.float64):
    """PixArt-α, on text embeddings of 12 channels and the size of the image."""
    text = {"cross_attention_dim": 24, "caption_channels": 12, "use_additional_conditions": True}
    options = {"attention_head_dim": 12, "norm_num_groups": 4}
    return make("PixArtTransformer2DModel", dtype, **TRANSFORMER | text | options)


def autoencoder(dtype=torch.float64, **options):
    """An `AutoencoderKL` that halves the sides of its images."""
    given = {
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "latent_channels": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    return make("AutoencoderKL", dtype, **given | options)


@torch.no_grad()
def run(model, scheduler, start, **conditions):
    """`scheduler` in the loop of its pipelines, from a sample in its own scaling; `set_timesteps` has been called."""
    sample, scheduler = start, copy.deepcopy(scheduler)  # which remembers how far it is
    for t in scheduler.timesteps:
        scaled = getattr(scheduler, "scale_model_input", None)  # which schedulers of flow do not have
        seen = sample if scaled is None else scaled(sample, t)
        arguments = {"timestep": t.expand(len(seen)), "return_dict": False}
        output = model(seen, **arguments, **conditions)[0]
        sample = scheduler.step(output[:, : seen.shape[1]], t, sample, return_dict=False)[0]
    return sample


def sigmas_of(scheduler):
    """The noise levels of a scheduler's steps, which Heun's has twice, down to the terminal one."""
    levels = dict.fromkeys(scheduler.sigmas.double().tolist())
    return tuple(levels)
