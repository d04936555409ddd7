"""import-stylegan, and sample on what it leaves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from gemix.gan.checkpoints.generator_io import load_generator, load_weights
from gemix.gan.models.architecture import Architecture
from gemix.gan.models.discriminator import Discriminator
from gemix.gan.models.generator import Generator
from gemix.io.storage import Store
from jobs._runtime.cli import main
from tests.public_pickle import dump, public_networks

SIZES = {"z_dim": 8, "w_dim": 8, "mapping_layers": 2, "channel_base": 128, "channel_max": 16}


def networks(channels: int, classes: int) -> tuple[Generator, Discriminator]:
    architecture = Architecture(
        resolution=16, img_channels=channels, label_dim=classes, conv_clamp=256, **SIZES
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = Generator(architecture).requires_grad_(False)
        for block in generator.synthesis.blocks:
            for conv in block.convs:
                conv.noise_strength.fill_(0.3)
        generator.mapping.w_avg.normal_()
        return generator, Discriminator(architecture)


def write_pickle(url: str, generator: Generator, discriminator: Discriminator) -> str:
    data = dump(public_networks(generator, discriminator))
    Store(url).write_bytes("network.pkl", data)
    return f"{url}/network.pkl"


def public_image(generator, seed, label, psi, noise) -> np.ndarray:
    """The image as the public tool makes it, uint8 [H, W, C]."""
    z = torch.from_numpy(np.random.RandomState(seed).randn(1, generator.architecture.z_dim))
    image = generator(z.float(), torch.tensor([label]), noise, truncation_psi=psi)
    pixels = (image.permute(0, 2, 3, 1) * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    return pixels[0].numpy()


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
@pytest.mark.parametrize("label", [[], [0.7, 0.2, 0.1]])
def test_imported_networks_give_the_images_of_the_public_image(tmp_path, channels, mode, label):
    generator, discriminator = networks(channels, len(label))
    path = write_pickle(str(tmp_path), generator, discriminator)
    gan, out = str(tmp_path / "gan"), tmp_path / "samples"
    assert main(["import-stylegan", path, gan]) == 0
    arguments = ["sample", "--gan", gan, "--out", str(out), "--seeds", "0,77", "--overwrite"]
    arguments += ["--label", ",".join(map(str, label))] if label else []
    for psi, noise in [(1.0, "const"), (0.5, "none")]:
        assert main([*arguments, "--truncation", str(psi), "--noise", noise]) == 0
        fixed = generator.noise_const() if noise == "const" else None
        archive = np.load(out / "images.npz", allow_pickle=False)
        assert archive["label"].tolist() == pytest.approx(label)
        for index, seed in enumerate([0, 77]):
            png = Image.open(out / f"seed{seed:010d}.png")
            assert png.mode == mode
            pixels = np.asarray(png).reshape(16, 16, channels)
            np.testing.assert_array_equal(pixels, archive["images"][index].transpose(1, 2, 0))
            expected = public_image(generator, seed, label, psi, fixed)
            assert np.abs(pixels.astype(int) - expected).max() <= 1
            assert expected.std() > 5
    assert Image.open(out / "grid.png").size == (32, 16)


def test_the_directory_holds_all_that_a_training_can_start_from(tmp_path, bucket):
    generator, discriminator = networks(1, 3)
    path = write_pickle(f"{bucket}/public", generator, discriminator)
    out = f"{bucket}/gan"
    assert main(["import-stylegan", path, out, "--classes", "normal,pneumonia,cancer"]) == 0
    trained = load_generator(Store(out))
    assert trained.classes == ("normal", "pneumonia", "cancer")
    assert trained.network.architecture == generator.architecture
    weights = load_weights(Store(out))
    for state, network in [
        (weights.generator_ema, generator),
        (weights.discriminator, discriminator),
    ]:
        assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())
    half = generator.mapping.fc0.weight / 2
    assert torch.equal(weights.generator["mapping.fc0.weight"], half)


def test_a_finished_result_is_only_replaced_when_asked_to(tmp_path, capsys):
    path = write_pickle(str(tmp_path), *networks(1, 0))
    out = str(tmp_path / "gan")
    assert main(["import-stylegan", path, out]) == 0
    assert main(["import-stylegan", path, out]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main(["import-stylegan", path, out, "--overwrite"]) == 0


def test_labels_and_classes_that_do_not_fit_are_refused(tmp_path, capsys):
    def refused(code: int, message: str, *arguments: str) -> None:
        assert main(list(arguments)) == code
        assert message in capsys.readouterr().err

    three = write_pickle(str(tmp_path / "three"), *networks(1, 3))
    none = write_pickle(str(tmp_path / "none"), *networks(1, 0))
    out = str(tmp_path / "gan")
    refused(2, "have 3 classes", "import-stylegan", three, out, "--classes", "normal,cancer")
    refused(2, "have 3 classes", "import-stylegan", three, out, "--classes", "a,a,b")
    refused(2, "have 0 classes", "import-stylegan", none, out, "--classes", "normal")
    assert Store(out).list() == []
    sample = ["sample", "--gan", out, "--out", str(tmp_path / "samples")]
    assert main(["import-stylegan", three, out]) == 0
    refused(2, "each of the classes class0, class1, class2", *sample)
    assert main(["import-stylegan", none, out, "--overwrite"]) == 0
    refused(2, "no classes", *sample, "--label", "1")


def test_bad_files_leave_nothing_behind(tmp_path, capsys):
    out = str(tmp_path / "gan")
    whole = dump(public_networks(*networks(1, 0)))
    for name, data, message in [
        ("cut", whole[: len(whole) // 2], "damaged"),
        ("other", b"GIF89a", "not a network pickle"),
        ("evil", b"cos\nsystem\n(S'true'\ntR.", "'os.system'"),
    ]:
        Store(tmp_path).write_bytes(name, data)
        assert main(["import-stylegan", str(tmp_path / name), out]) == 1
        assert message in capsys.readouterr().err
    assert main(["import-stylegan", str(tmp_path / "missing"), out]) == 1
    assert "cannot be read" in capsys.readouterr().err
    assert Store(out).list() == []
