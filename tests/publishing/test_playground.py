"""The playground page: its file, its agreement with torch in a real browser, and its use."""

import base64
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import cross_entropy

from fmlib.core.config import MinimalMaskSpec, SyntheticSpec
from fmlib.core.data import sample_image
from fmlib.core.masks import clipped_exp_square
from fmlib.core.minimal_masks import knapsack_step, minimal_masks
from fmlib.core.spectra import apply_mask, l1_share
from fmlib.core.synthetic import make_synthetic
from fmlib.pipeline.results import PUBLISHED, Results
from fmlib.publishing import build
from fmlib.publishing.playground import binary, book
from fmlib.publishing.playground.drawings import DRAWINGS
from fmlib.studies.shared.pretrained import network_from
from fmlib.studies.shared.profiles import profile

RESULTS = Results.open(PUBLISHED / build.SHOWN)


# ---------------------------------------------------------------------------------------------- the file


def test_the_committed_files_are_those_of_the_published_results():
    for name, content in book.files(RESULTS).items():
        if name != "preview.png":  # drawn with the fonts of the machine
            assert (binary.FOLDER / name).read_bytes() == content, "run 'fmlib book publish'"


def test_the_file_is_at_most_two_megabytes():
    assert (binary.FOLDER / "networks.bin").stat().st_size <= 2e6


@given(st.integers(0, 1000))
def test_a_quantized_weight_is_off_by_half_a_step_at_most(seed):
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(seed))
    whole, scale = binary.quantized(weight)
    assert whole.abs().amax((1, 2, 3)).eq(32767).all()
    step = scale.view(-1, 1, 1, 1)
    assert ((whole * step - weight).abs() <= 0.505 * step).all()  # single precision has 24 bits, these 16


def test_what_is_imported_comes_first():
    sources = {"a.mjs": 'import { b } from "./b.mjs";', "b.mjs": 'import { c } from "./c.mjs";', "c.mjs": ""}
    assert list(binary.in_order(sources)) == ["c.mjs", "b.mjs", "a.mjs"]


@pytest.mark.parametrize(("name", "label"), [("dog", "English springer"), ("cassette-player", "cassette player")])
def test_a_drawing_is_recognised_and_its_middle_frequencies_are_needed(name, label):
    """Both networks predict its class; without frequencies another one; from the middle ones its class again."""
    settings = profile("laptop")
    drawn = DRAWINGS[name][1](64)[None, None].float() / 255
    rows, columns = torch.fft.fftfreq(64) * 64, torch.fft.rfftfreq(64) * 64
    middle = (torch.hypot(rows[:, None], columns[None]) <= 4).float()
    label = RESULTS.arrays("samples")["classes"].tolist().index(label)
    for regime in "NA":
        model = network_from(RESULTS, f"network_{regime}.safetensors", settings)
        filtered = [apply_mask(drawn, mask[None], settings.network.mean) for mask in (torch.zeros_like(middle), middle)]
        with torch.no_grad():
            whole, gray, again = (int(model(one).argmax()) for one in (drawn, *filtered))
            assert model(drawn).softmax(1).max() > 0.8
        assert whole == again == label != gray


def test_drawings_are_the_same_at_every_side():
    for _, draw in DRAWINGS.values():
        small, large = draw(32), draw(64)
        assert small.dtype == large.dtype == torch.uint8
        coarse = large.float().view(32, 2, 32, 2).mean((1, 3))
        assert (small.float() - coarse).abs().mean() < 2


# ---------------------------------------------------------------------------------------------- agreement with torch


@pytest.fixture
def served(visit, address):
    """The playground, served and ready."""
    return ready(visit(f"{address}/playground.html"))


def ready(found):
    found.page.wait_for_selector("#playground:not([hidden])")
    found.page.wait_for_function("document.getElementById('playground').dataset.answered > 0")
    return found


ASK = """async (requests) => {
  const { Client } = await import("./_static/playground/client.mjs");
  const client = new Client("./_static/playground/worker.mjs", (message) => { throw new Error(message); });
  const binary = await (await fetch("_static/playground/networks.bin")).arrayBuffer();
  await client.ask("open", { binary });
  const answers = [];
  for (const { kind, pixels, ...rest } of requests) {
    const found = await client.ask(kind, { ...rest, pixels: Float64Array.from(pixels, (value) => value / 255) });
    for (const name in found) if (ArrayBuffer.isView(found[name])) found[name] = [...found[name]];
    answers.push(found);
  }
  return answers;
}"""


def thirty_photographs():
    """uint8 (30, 64, 64): twenty of the validation set, scikit-learn's two, and eight crops of those."""
    samples = (RESULTS.arrays("samples")["x"].reshape(20, 64, 64).astype(np.float64) * 255).round().astype(np.uint8)
    own = [sample_image(name, size)[0] for name in binary.PHOTOGRAPHS for size in (64, 96, 128, 192, 256)]
    return np.concatenate([samples, np.stack([one[-64:, -64:].numpy() for one in own])])


#: Data set -> its profile, the files of its networks, and pictures.
DATASETS = {
    "photographs": ("laptop", "network_{}.safetensors", thirty_photographs),
    "synthetic": (
        "quick",
        "synthetic_network_{}.safetensors",
        lambda: make_synthetic(SyntheticSpec()).validation.images[:20, 0].numpy(),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("regime", "NA")
@pytest.mark.parametrize("dataset", DATASETS)
def test_probabilities_and_gradients_are_those_of_torch(served, dataset, regime):
    name, file, make = DATASETS[dataset]
    model = network_from(RESULTS, file.format(regime), profile(name))
    pictures = make()
    labels = torch.arange(len(pictures)) % 5
    asked = [
        {"kind": "gradient", "name": dataset, "regime": regime, "label": label, "pixels": picture.ravel().tolist()}
        for picture, label in zip(pictures, labels.tolist(), strict=True)
    ]
    answers = served.page.evaluate(ASK, asked)
    pixels = (torch.from_numpy(pictures).double()[:, None] / 255).requires_grad_()
    with torch.no_grad():
        probabilities = model(pixels.float()).softmax(1)
    here = torch.tensor([answer["probabilities"] for answer in answers])
    assert (here - probabilities).abs().max() < 1e-3

    losses = cross_entropy(binary.rounded(model).double()(pixels), labels, reduction="none")
    (gradients,) = torch.autograd.grad(losses.sum(), pixels)
    difference = torch.tensor([answer["gradient"] for answer in answers], dtype=torch.float64) - gradients.flatten(1)
    assert (difference.norm(dim=1) / gradients.flatten(1).norm(dim=1)).max() < 1e-3
    np.testing.assert_allclose([answer["loss"] for answer in answers], losses.detach(), rtol=1e-3)


STEPS = """async ([problems, penalty]) => {
  const { knapsackStep } = await import("./_static/playground/masks.mjs");
  return problems.map(([mask, gradient, [change], weights, reach]) =>
    knapsackStep(mask, gradient, change, weights, reach, penalty));
}"""


def test_steps_of_the_solver_are_those_of_the_library(served):
    generator = torch.Generator().manual_seed(0)
    for radius, penalty in ((0.01, 0.07), (0.1, 0.0), (0.1, 2.0), (1.0, 0.07)):
        mask, grad, change, weights = (torch.rand(20, n, generator=generator).double() for n in (300, 300, 1, 300))
        mask[mask < 0.2], weights = 0, 0.1 + weights[0]
        grad, change = grad - 0.5, 20 * (change - 0.5)
        reach = radius * torch.rand(20, 300, generator=generator).double()
        rows = [mask, grad, change, weights.expand(20, -1), reach]
        problems = [[row.tolist() for row in problem] for problem in zip(*rows, strict=True)]
        here = torch.tensor(served.page.evaluate(STEPS, [problems, penalty])).double()
        np.testing.assert_allclose(here, knapsack_step(*rows[:3], weights, rows[4], penalty), atol=1e-5)


#: Pictures whose masks are compared: the temple; one whose iterates lose the label; a synthetic one. And the
#: number of steps before rounding, of single precision in the page, is amplified by the threshold of the knapsack.
LEARNED = [("photographs", 20, "N", 3), ("photographs", 28, "A", 8), ("synthetic", 1, "N", 8)]


@pytest.mark.parametrize(("dataset", "number", "regime", "steps"), LEARNED)
def test_masks_are_those_of_the_library(served, dataset, number, regime, steps):
    name, file, make = DATASETS[dataset]
    found = profile(name)
    model = binary.rounded(network_from(RESULTS, file.format(regime), found)).double()
    pixels = torch.from_numpy(make()[number])
    image = pixels.double()[None, None] / 255
    label, centre, spec = model(image).argmax(1), found.network.mean, MinimalMaskSpec()
    asked = {"kind": "learn", "name": dataset, "regime": regime, "pixels": pixels.flatten().tolist()}
    options = {name: getattr(spec, name) for name in binary.LEARNING}
    few = replace(spec, steps=steps)
    first, last = served.page.evaluate(
        ASK, [asked | {"options": options | {"steps": steps}}, asked | {"options": options}]
    )

    def learned(one):
        return minimal_masks(model, image, label, one, centre=centre, progress=False).half[0]

    def quality(half):
        """Excess of the objective over 1, L1 share, and whether the prediction is kept."""
        with torch.no_grad():
            logits = model(apply_mask(image, half, centre))
            change = cross_entropy(logits, label) - cross_entropy(model(image), label)
        share = float(l1_share(half, found.data.size))
        excess = float(clipped_exp_square(change, spec.clip)) - 1 + spec.penalty * share
        return excess, share, bool(logits.argmax(1) == label)

    # Rounding may swap entries of nearly equal benefit, and later lead to another mask of the same quality.
    assert np.abs(first["half"] - learned(few).flatten().numpy()).mean() < 1e-5
    half = torch.tensor(last["half"]).double().view(found.data.size, -1)
    excess, share, label_kept = quality(half)
    there = quality(learned(spec))
    assert label_kept
    assert there[2]
    assert 0.5 < excess / there[0] < 2
    assert 0.5 < share / there[1] < 2
    assert last["share"] == pytest.approx(share, rel=1e-4)
    assert last["kept"]
    np.testing.assert_allclose(last["filtered"], apply_mask(image, half, centre).flatten(), atol=1e-4)


def test_an_attack_stays_in_its_ball_and_changes_the_prediction(served):
    picture = sample_image("china", 64).flatten()
    options = {"epsilon": 0.0136, "step": 0.0017, "steps": 10, "seed": 1}
    asked = {"name": "photographs", "regime": "N", "pixels": picture.tolist()}
    (attack,) = served.page.evaluate(ASK, [asked | {"kind": "attack", "options": options}])
    attacked, pixels = np.array(attack["attacked"]), picture.numpy() / 255
    assert np.abs(attacked - pixels).max() <= options["epsilon"] + 1e-12
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    model = network_from(RESULTS, "network_N.safetensors", profile("laptop"))
    before, after = (model(torch.tensor(one).float().view(1, 1, 64, 64)).argmax(1) for one in (pixels, attacked))
    assert before != after


# ---------------------------------------------------------------------------------------------- use of the page


def answers(page):
    """The table's numbers: one row per class; columns N unmasked, N masked, A unmasked, A masked."""
    return np.array(
        [[float(cell) for cell in row.split("\t")[1:]] for row in page.inner_text("#answers tbody").splitlines()]
    )


def after(page, act):
    """Call `act` and wait for the networks' answer; milliseconds of both, by the page's clock."""
    before = page.evaluate("[Number(document.getElementById('playground').dataset.answered), performance.now()]")
    act()
    page.wait_for_function(f"Number(document.getElementById('playground').dataset.answered) > {before[0]}", polling=5)
    return page.evaluate("performance.now()") - before[1]


def spot(page, dx=0.0, dy=0.0):
    """A position on the spectrum: distance from its middle, as shares of its side."""
    page.locator("#spectrum").scroll_into_view_if_needed()
    box = page.locator("#spectrum").bounding_box()
    return box["x"] + box["width"] * (0.5 + dx), box["y"] + box["height"] * (0.5 + dy)


def kept(page):
    return float(page.inner_text("#share").split("%")[0])


def test_from_the_home_page_to_a_painted_mask(visit, address):
    found = visit(f"{address}/intro.html")
    found.page.get_by_role("link", name="playground").last.click()
    page = ready(found).page
    after(page, lambda: page.click("#none"))
    assert kept(page) == 0
    gray = answers(page)
    page.mouse.move(*spot(page))
    after(page, page.mouse.down)
    page.mouse.move(*spot(page, 0.1, 0.1), steps=5)
    page.mouse.up()
    page.wait_for_timeout(200)
    assert 0 < kept(page) < 20
    assert np.abs(answers(page) - gray)[:, 1::2].max() > 1
    assert (answers(page) == gray)[:, ::2].all()
    assert found.errors == []
    assert found.outside == []


def test_the_first_exercise(served):
    """Remove everything: another prediction; paint in the middle: the prediction returns."""
    page = served.page
    clean = answers(page)
    dog = page.inner_text("#answers tbody").splitlines()[1].split("\t")[0]
    assert dog == "English springer"
    assert clean.argmax(0).tolist() == [1, 1, 1, 1]
    after(page, lambda: page.click("#none"))
    page.wait_for_timeout(200)
    removed = answers(page).argmax(0)
    assert removed[[0, 2]].tolist() == [1, 1]
    assert 1 not in removed[[1, 3]]
    for dx, dy in ((0, 0), (0.02, 0.02), (-0.02, 0.02), (0.02, 0), (0, 0.02)):
        page.mouse.move(*spot(page, dx, dy))
        after(page, page.mouse.down)
        page.mouse.up()
    page.wait_for_timeout(200)
    assert answers(page).argmax(0).tolist() == [1, 1, 1, 1]
    assert kept(page) < 5


def test_bars_have_one_scale(served):
    page = served.page
    cells = page.locator("#answers tbody tr").first.locator("td")
    widths = cells.evaluate_all("cells => cells.map(cell => cell.getBoundingClientRect().width)")
    assert len(widths) == 4
    assert max(widths) - min(widths) < 1
    parts = cells.evaluate_all("cells => cells.map(cell => [cell.style.getPropertyValue('--part'), cell.textContent])")
    assert all(part == f"{text}%" for part, text in parts)


def test_a_stroke_is_answered_within_a_tenth_of_a_second(served):
    page = served.page
    after(page, lambda: page.click("#none"))
    stroke = """async ([x, y]) => {
      const [canvas, page] = ["spectrum", "playground"].map((name) => document.getElementById(name));
      const before = page.dataset.answered, begun = performance.now();
      canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: x, clientY: y, buttons: 1 }));
      while (page.dataset.answered === before) await new Promise((resolve) => setTimeout(resolve, 1));
      return performance.now() - begun;
    }"""
    took = [page.evaluate(stroke, list(spot(page, 0.02 * n, 0.05))) for n in range(15)]
    assert min(took) < 100  # other measurements may wait for other work of the machine


def test_painting_by_keyboard(served):
    page = served.page
    after(page, lambda: page.click("#none"))
    page.focus("#spectrum")
    for key in ("ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    after(page, lambda: page.keyboard.press("Space"))
    once = kept(page)
    assert once > 0
    after(
        page,
        lambda: (page.check("input[name=brush][value='0']"), page.focus("#spectrum"), page.keyboard.press("Enter")),
    )
    assert kept(page) == 0


def test_bands_and_learned_masks(served):
    page = served.page
    after(page, lambda: page.fill("#outer", "0.3"))
    inside = kept(page)
    assert 0 < inside < 100 * 3.15 * 0.3**2 / 2 * 1.2  # a disc of .3 of the corner's radius
    after(page, lambda: page.fill("#width", "20"))
    assert 0 < kept(page) < inside / 3
    after(page, lambda: page.click("#apply"))
    share = 100 * RESULTS.arrays("dataset_masks")["N"][0].mean()
    assert kept(page) == pytest.approx(share, abs=0.06)
    clean = answers(page)
    assert (clean[:, 0].argmax(), clean[:, 2].argmax()) == (clean[:, 1].argmax(), clean[:, 3].argmax())
    after(page, lambda: page.click("#apply-complement"))
    assert np.abs(answers(page) - clean)[:, 1].max() > 20


def test_a_band_that_ends_before_it_begins_is_refused(served):
    page = served.page
    after(page, lambda: page.fill("#outer", "0.3"))
    share = kept(page)
    page.fill("#inner", "0.6")
    assert page.inner_text("#band") == (
        'Refused: the radius would go from 60.0 to 30.0%. Set "from" below "to". The mask is unchanged.'
    )
    assert page.get_attribute("#inner", "aria-invalid") == page.get_attribute("#outer", "aria-invalid") == "true"
    page.wait_for_timeout(200)
    assert kept(page) == share
    after(page, lambda: page.fill("#outer", "0.8"))
    assert page.inner_text("#band").startswith("60.0 to 80.0% of the corner's radius")
    assert page.get_attribute("#inner", "aria-invalid") == "false"
    after(page, lambda: page.click("#all"))  # no band of the sliders
    assert page.inner_text("#band") == ""
    assert page.input_value("#inner") == "0"


def test_messages_do_not_outlast_what_they_speak_of(served, tmp_path):
    page = served.page
    (tmp_path / "notes.png").write_text("no picture")
    says = "document.getElementById('playground-status').textContent"
    page.set_input_files("#upload", tmp_path / "notes.png")
    page.wait_for_selector("#playground-message:not([hidden])")
    after(page, lambda: page.select_option("#picture", "photographs cassette-player"))
    assert page.is_hidden("#playground-message")
    assert page.input_value("#upload") == ""

    page.click("#learn")
    page.wait_for_function(f"{says}.startsWith('Done')", timeout=300_000)
    assert page.inner_text("#learning-says")
    after(page, lambda: page.click("#all"))
    assert page.evaluate(says) == page.inner_text("#learning-says") == ""
    assert page.evaluate("document.getElementById('learning-progress').value") == 0

    filled = """document.getElementById('change').getContext('2d').getImageData(0, 0, 1, 1).data[3] > 0"""
    after(page, lambda: page.click("#attack"))
    page.wait_for_function(f"{says}.startsWith('Attacked')")
    assert page.evaluate(filled)
    after(page, lambda: page.click("#undo"))
    page.wait_for_function(f"{says} === 'The attack is undone.'")
    assert not page.evaluate(filled)
    after(page, lambda: page.select_option("#picture", "photographs flower"))
    assert page.evaluate(says) == ""


#: Learn a mask until the element `name` has changed `count` times, then stop it if asked to; element -> its texts.
LEARN = """([name, count, stop]) => new Promise((resolve) => {
  const lines = { "playground-status": [], "learning-says": [] };
  const button = document.getElementById("learn");
  for (const one in lines)
    new MutationObserver(() => {
      lines[one].push(document.getElementById(one).textContent);
      if (one !== name || lines[name].length !== count) return;
      if (stop) button.click();
      resolve(lines);
    }).observe(document.getElementById(one), { childList: true });
  button.click();
})"""


def test_learning_is_announced_and_keeps_the_prediction(served):
    page = served.page
    lines = page.evaluate(LEARN, ["playground-status", 2, False])
    steps = MinimalMaskSpec().steps
    assert len(lines["learning-says"]) > 5
    assert lines["learning-says"][0].startswith(f"Step 5 of {steps}: L1 share ")
    first, last = lines["playground-status"]  # read out by screen readers, so that it is changed twice only
    assert first == f"Learning a mask in {steps} steps."
    assert last.startswith(f"Done after {steps} steps: L1 share 0.")
    assert last.endswith("prediction kept.")
    assert page.evaluate("document.getElementById('learning-progress').value") == 1
    assert page.inner_text("#learn") == "Learn the mask"
    assert kept(page) < 1
    assert answers(page)[:, 0].argmax() == answers(page)[:, 1].argmax()


def test_learning_can_be_stopped(served):
    page = served.page
    lines = page.evaluate(LEARN, ["learning-says", 1, True])
    assert lines["learning-says"][0].startswith("Step 5 of 60")
    assert page.inner_text("#learn") == "Learn the mask"
    assert page.inner_text("#playground-status") == "Learning is stopped."
    stopped = kept(page)
    after(page, lambda: page.click("#invert"))  # answered by the worker after what it had begun
    assert kept(page) == pytest.approx(100 - stopped, abs=0.11)


def test_a_synthetic_tone_is_found(served):
    page = served.page
    after(page, lambda: page.select_option("#picture", "synthetic tone-1"))
    page.click("#learn")
    page.wait_for_function(
        "document.getElementById('playground-status').textContent.startsWith('Done')", timeout=300_000
    )
    assert kept(page) < 2
    result = answers(page)
    assert result[:, 0].argmax() == result[:, 1].argmax() == 0


def test_attack_and_undo(served):
    page = served.page
    clean = answers(page)
    after(page, lambda: page.click("#attack"))
    page.wait_for_function("document.getElementById('original-says').textContent.includes('attacked')")
    page.wait_for_timeout(300)
    attacked = answers(page)
    assert attacked[:, 0].argmax() != clean[:, 0].argmax()
    after(page, lambda: page.click("#undo"))
    page.wait_for_timeout(300)
    assert (answers(page) == clean).all()


def test_two_masks_are_compared(served):
    page = served.page
    after(page, lambda: page.click("#apply"))
    page.click("#keep")
    page.select_option("#learned", "A")
    after(page, lambda: page.click("#apply"))
    lines = [line.strip() for line in page.inner_text("#energies-says").splitlines()]
    shares = [100 * RESULTS.arrays("dataset_masks")[one][0].mean() for one in "NA"]
    assert [float(line.split(":")[1].split("%")[0]) for line in lines] == pytest.approx(shares, abs=0.06)
    names = [line.split(":")[0] for line in lines]
    assert names == [
        "dataset mask, standard (N)",
        "dataset mask, adversarially trained (A) (the mask shown)",
    ]
    plot = page.locator(".playground-plot", has=page.locator("#energies"))
    assert plot.inner_text().split("\n")[0] == page.inner_text("#energies-top")
    assert 0 < float(page.inner_text("#energies-top")) <= 1
    assert "radius, as a share of the corner's" in plot.inner_text()


def test_kept_masks_have_names_of_their_own(served):
    page = served.page
    page.click("#keep")
    page.click("#keep")
    after(page, lambda: page.click("#none"))
    after(page, lambda: page.click("#invert"))
    page.click("#keep")
    after(page, lambda: page.fill("#outer", "0.3"))
    after(page, lambda: page.fill("#width", "20"))
    names = [line.strip().split(":")[0] for line in page.inner_text("#energies-says").splitlines()]
    assert names == [
        "all frequencies",
        "all frequencies (2)",
        "inverse of no frequencies",
        "band 0.0 to 30.0%, 90° ± 20° (the mask shown)",
    ]
    page.click("#forget")
    assert len(page.inner_text("#energies-says").splitlines()) == 1


def test_a_link_keeps_the_state(visit, address):
    first = ready(visit(f"{address}/playground.html", permissions=["clipboard-read", "clipboard-write"])).page
    after(first, lambda: first.select_option("#picture", "photographs flower"))
    after(first, lambda: first.click("#apply"))
    after(first, lambda: first.click("#attack"))
    first.wait_for_timeout(300)
    first.click("#link")
    first.wait_for_function("document.getElementById('playground-status').textContent === 'The link is copied.'")
    second = ready(visit(first.evaluate("navigator.clipboard.readText()"))).page
    second.wait_for_function("document.getElementById('original-says').textContent.includes('attacked')")
    second.wait_for_timeout(500)
    assert (answers(first) == answers(second)).all()
    assert kept(first) == kept(second)


def test_an_uploaded_picture_is_read_and_kept_in_the_link(visit, address, tmp_path):
    Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (200, 1))).convert("RGB").save(tmp_path / "ramp.png")
    found = ready(visit(f"{address}/playground.html", permissions=["clipboard-read", "clipboard-write"]))
    after(found.page, lambda: found.page.set_input_files("#upload", tmp_path / "ramp.png"))
    found.page.wait_for_function("document.getElementById('original-says').textContent === 'Your picture'")
    found.page.wait_for_timeout(300)
    found.page.click("#link")
    found.page.wait_for_function("document.getElementById('playground-status').textContent === 'The link is copied.'")
    again = ready(visit(found.page.evaluate("navigator.clipboard.readText()"))).page
    again.wait_for_function("document.getElementById('original-says').textContent === 'Your picture'")
    again.wait_for_timeout(500)
    assert (answers(again) == answers(found.page)).all()
    assert found.outside == []


def test_it_fits_a_phone(visit, address):
    page = ready(visit(f"{address}/playground.html", width=390)).page
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    groups = page.locator(".playground-group")
    assert groups.evaluate_all("groups => groups.filter(group => group.open).length") == 2
    for group in groups.all():
        if not group.evaluate("group => group.open"):
            group.locator("summary").press("Enter")
    assert groups.evaluate_all("groups => groups.every(group => group.open)")
    assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize("control", ["#none", "#outer", "#learn", "#attack", "#keep"])
def test_on_a_phone_picture_and_predictions_stay_in_sight_of_every_control(visit, address, control):
    page = ready(visit(f"{address}/playground.html", width=390)).page
    page.locator(control).evaluate("one => (one.closest('details').open = true)")
    page.focus(control)
    page.wait_for_timeout(300)
    for seen in ("#spectrum", "#filtered", "#answers-says", control):
        middle = page.locator(seen).evaluate(
            """one => {
              const box = one.getBoundingClientRect();
              const found = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
              return one.contains(found) || found?.contains(one) && found !== document.body;
            }"""
        )
        assert middle, f"{seen} is covered or out of sight"
    before = page.inner_text("#answers-says")
    assert [line[:2] for line in before.splitlines()] == ["N:", "A:"]
    if control == "#none":
        after(page, lambda: page.click(control))
        page.wait_for_timeout(200)
        assert page.inner_text("#answers-says") != before


def test_it_works_from_disk(visit, site):
    found = ready(visit(f"file://{site}/playground.html"))
    after(found.page, lambda: found.page.click("#apply"))
    assert found.errors == []
    assert found.outside == []


# ---------------------------------------------------------------------------------------------- what can go wrong


def test_files_that_are_no_pictures_and_huge_ones(served, tmp_path):
    page = served.page
    before = answers(page)
    (tmp_path / "notes.png").write_text("no picture")
    Image.new("1", (9000, 9000)).save(tmp_path / "wide.png")
    (tmp_path / "heavy.png").write_bytes(bytes(41_000_000))
    for name, complaint in (("notes", "no picture"), ("wide", "too large"), ("heavy", "too large")):
        page.set_input_files("#upload", tmp_path / f"{name}.png")
        page.wait_for_function(f"document.getElementById('playground-message').textContent.includes('{complaint}')")
        assert page.is_visible("#playground-message")
    assert (answers(page) == before).all()
    after(page, lambda: page.click("#apply"))


def test_a_damaged_link(visit, address):
    for end, complaint in (
        ("mask=%%%", "damaged"),
        ("dataset=none&picture=x&mask=AA", "damaged"),
        ("dataset=none&mask=AwA", "edition"),
    ):
        page = ready(visit(f"{address}/playground.html#{end}")).page
        page.wait_for_function(f"document.getElementById('playground-message').textContent.includes('{complaint}')")
        assert kept(page) == 100


def bomb() -> str:
    """A mask in a link that unpacks to 100 MB."""
    packer = zlib.compressobj(wbits=-15)
    return base64.urlsafe_b64encode(packer.compress(bytes(100_000_000)) + packer.flush()).decode().rstrip("=")


@pytest.mark.parametrize("mask", ["A" * 1_900_000, bomb()], ids=["1.9 MB", "unpacks to 100 MB"])
def test_an_enormous_link(visit, address, mask):
    """Of nearly the 2 MB at which Chromium cuts links off."""
    page = ready(visit(f"{address}/playground.html")).page
    page.evaluate("link => { location.hash = link; }", f"dataset=photographs&mask={mask}")
    page.reload()
    page.wait_for_function("document.getElementById('playground-message').textContent.includes('damaged')")
    assert kept(page) == 100


def test_a_link_of_ten_megabytes_is_not_read(visit, address):
    page = ready(visit(f"{address}/playground.html")).page
    read = """async () => {
        const { decode } = await import("./_static/playground/link.mjs");
        return decode("mask=" + "A".repeat(1e7)).then(() => "read", (error) => error.message);
    }"""
    assert page.evaluate(read) == "The link is too long."


@pytest.mark.parametrize("length", [5, 10, 4000, 700_000, None])
def test_a_file_of_networks_cut_short_or_with_a_flipped_bit(browser, address, length):
    page = browser.new_page()
    whole = bytearray((binary.FOLDER / "networks.bin").read_bytes())
    if length is None:
        whole[-1000] ^= 1
    page.route("**/networks.bin", lambda route: route.fulfill(body=bytes(whole[:length])))
    page.goto(f"{address}/playground.html")
    page.get_by_text("build the page again").wait_for()
    assert page.is_visible("#figure-playground")
    assert page.is_hidden("#playground")
    page.close()


def test_without_workers(browser, address):
    page = browser.new_page()
    page.add_init_script("delete globalThis.Worker")
    page.goto(f"{address}/playground.html")
    page.get_by_text("needs Web Workers").wait_for()
    assert page.is_visible("#figure-playground")
    page.close()


def test_without_javascript(browser, address):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(f"{address}/playground.html")
    assert page.is_visible("#figure-playground")
    assert page.get_by_text("needs JavaScript").is_visible()
    assert page.is_hidden("#playground")
    page.context.close()
