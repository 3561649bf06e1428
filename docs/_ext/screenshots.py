"""The screenshots of the explorer in docs/images/explorer, with Debian's Chromium; `make screenshots`."""

from __future__ import annotations

import io
import shutil
import socket
import threading
import time
from pathlib import Path

import uvicorn
from PIL import Image
from playwright.sync_api import Page, sync_playwright

import diffspace as ds
from diffspace.explorer import create_app
from diffspace.explorer.models import Offered

FOLDER = Path(__file__).parents[1] / "images" / "explorer"
MODEL = Path(__file__).parents[2] / "runs" / "digits"  # of `make demo`, where there is one
WIDE, PHONE = (1280, 860), (390, 780)
RING = "data.modes=" + ";".join(f"1,0.1,{x},{y}" for x, y in ((1, 0), (0, 1), (-1, 0), (0, -1)))
SHOTS = {
    "process": ("#process?process.name=formula&lines=40", WIDE, "light"),
    "process-dark": ("#process?process.name=VP&towards.name=EDM&share=0.3&time=0.4", WIDE, "dark"),
    "process-phone-dark": ("#process", PHONE, "dark"),
    "sampler": ("#sampler?compare=true&a.num_steps=12&b.num_steps=23&step=8", WIDE, "light"),
    "sampler-dark": (f"#sampler?a.num_steps=14&step=9&{RING}", WIDE, "dark"),
    "sampler-phone": ("#sampler", PHONE, "light"),
    "training": ("#training", WIDE, "light"),
    "training-dark": ("#training", WIDE, "dark"),
    "model": ("#model", WIDE, "light"),
    "model-dark": ("#model?m.view=paint&m.chosen=3", WIDE, "dark"),
    "tour": ("#sampler?tour=churn.2&a.S_churn=12&a.num_steps=16&tracks=3&step=12", WIDE, "light"),
}


def main() -> None:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    models = {"digits": Offered.of(ds.load(MODEL), "runs/digits", ds.load_samplers(MODEL))} if MODEL.exists() else {}
    server = uvicorn.Server(uvicorn.Config(create_app(models), log_level="warning"))
    threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (state, (width, height), scheme) in SHOTS.items():
            size = {"width": width, "height": height}
            page = browser.new_page(viewport=size, color_scheme=scheme, device_scale_factor=1)  # type: ignore[arg-type]
            page.goto(f"http://127.0.0.1:{listening.getsockname()[1]}/{state}")
            _settle(page, name)
            picture = Image.open(io.BytesIO(page.screenshot()))
            picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(FOLDER / f"{name}.png", optimize=True)
            page.close()
        browser.close()
    server.should_exit = True


def _settle(page: Page, name: str) -> None:
    """Wait for the pictures; a training is begun and waited for."""
    while not page.evaluate("Boolean(window.explorer?.room?.().drawn)"):
        time.sleep(0.05)
    if name.startswith("training"):
        page.get_by_role("button", name="Train").first.click()
        time.sleep(12)
    time.sleep(3)


if __name__ == "__main__":
    main()
