// A network's panel: the lengths of its capsules, what its decoder draws of them, and routing, iteration by iteration.
"use strict";

const ROWS = 12; // classes that are told, the ones of greatest length where there are more
const NAME = 12; // letters of a class's name that have room beside its bar
const MOST_ITERATIONS = 7;
const NOTHING = 1e-6; // a map of less is one of rounding errors

// The red, green and blue of a pixel, from 0 to 255; of other channels than one or three, their mean.
function colourOf(pixels, i) {
  const own = pixels.subarray(i * CHANNELS, (i + 1) * CHANNELS);
  if (CHANNELS === 3) return own.map((value) => 255 * value);
  return new Float32Array(3).fill(255 * own.reduce((sum, value) => sum + value, 0) / CHANNELS);
}

// Put pixels in [0, 1] on a canvas; over them a map, where there is one, its greatest value `most` the strongest colour.
function paint(canvas, pixels, map = null, most = 1) {
  canvas.width = WIDTH;
  canvas.height = HEIGHT;
  const image = new ImageData(WIDTH, HEIGHT);
  for (let i = 0; i < HEIGHT * WIDTH; i++) {
    const share = map ? Math.min(1, Math.abs(map[i]) / most) : 0, heat = map && map[i] < 0 ? [64, 156, 255] : [255, 150, 0];
    const under = colourOf(pixels, i), light = map ? 0.55 : 1;
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = light * under[c] * (1 - 0.85 * share) + 0.85 * share * heat[c];
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function picture(caption) {
  const canvas = element("canvas", { class: "picture", role: "img", "aria-label": caption });
  return [canvas, element("figure", {}, canvas, element("figcaption", {}, caption))];
}

const named = (classes) => classes.map((k) => page.classes[k]).join(", ");
const rounded = (value) => (Math.abs(value) < 0.0005 ? "0" : String(Number(value.toPrecision(3))));

// A network's panel: `run` computes anew, `draw` shows what was computed.
function panel(model) {
  const trained = model.routing.iterations, view = { model, out: null, moved: null, decodedClass: -1, iterations: trained };
  const time = element("span", { class: "quiet" }), bars = barList(view), decoder = decoderPart(view), routing = routingPart(view);
  const error = model.error === null ? "" : `test error ${model.error.toFixed(2)} %, `;
  const about = element("p", { class: "quiet" }, `${error}${(model.parameters / 1e6).toFixed(2)} M parameters. `, time);
  view.place = element("section", { class: "model", "aria-label": model.label }, element("h3", {}, model.label.trim()), about,
    bars.place, decoder.place, routing.place, element("p", { class: "quiet run" }, model.run));

  view.run = () => {
    const start = performance.now();
    view.out = forward(model, state.pixels, view.iterations);
    time.textContent = `Computed in ${(performance.now() - start).toFixed(0)} ms.`;
    view.moved = null;
  };
  view.longest = () => greatest(view.out.activations, model.shown);
  view.ofClass = () => state.chosen ?? view.longest()[0];
  view.step = () => view.out.steps[Math.min(state.iteration ?? Infinity, view.out.steps.length - 1)];
  view.draw = () => {
    if (view.decodedClass !== view.ofClass()) view.moved = null;
    view.decodedClass = view.ofClass();
    bars.draw();
    decoder.draw();
    routing.draw();
  };
  return view;
}

// How long each class's capsule is, at the iteration that is looked at; a click chooses the class.
function barList(view) {
  const rows = page.classes.map((name, k) => {
    const fill = element("i"), value = element("span", { class: "number" });
    const button = element("button", { type: "button", class: "row" }, element("span", { class: "name" }, name), element("span", { class: "track" }, fill), value);
    button.addEventListener("click", () => choose(k));
    return { button, fill, value };
  });
  const wide = Math.min(NAME, Math.max(2, ...page.classes.map((name) => name.length)));
  const title = element("h4"), place = element("div", { class: "bars", style: `--name: ${wide}ch` }, title, ...rows.map(({ button }) => button));
  const draw = () => {
    const { activations } = view.step(), shown = new Set(greatest(activations, ROWS)), longest = new Set(greatest(activations, view.model.shown));
    const at = view.out.steps.indexOf(view.step()) + 1;
    title.textContent = `How present each class is, after iteration ${at} of ${view.out.steps.length}`;
    rows.forEach(({ button, fill, value }, k) => {
      button.hidden = !shown.has(k);
      button.classList.toggle("longest", longest.has(k));
      button.classList.toggle("label", Boolean(state.labels?.includes(k)));
      button.setAttribute("aria-pressed", String(k === view.ofClass()));
      fill.style.width = `${100 * Math.min(1, Math.max(0, activations[k]))}%`;
      value.textContent = activations[k].toFixed(3);
    });
  };
  return { place, draw };
}

// The reconstruction, and the chosen class's capsule with a slider for every dimension.
function decoderPart(view) {
  const { model } = view;
  if (!model.decodes) {
    const words = "This run has no decoder, so nothing is reconstructed; train one with loss.reconstruction=true.";
    return { place: element("p", { class: "quiet" }, words), draw() {} };
  }
  const [whole, wholeFigure] = picture("reconstruction"), [part, partFigure] = picture("the class capsule, decoded");
  const sliders = Array.from({ length: model.class_dim }, (_, d) => {
    const input = element("input", { type: "range", step: 0.01, "aria-label": `dimension ${d + 1}` }), value = element("output");
    input.addEventListener("input", () => { (view.moved ??= own())[d] = Number(input.value); draw(); });
    return { input, value, row: element("label", { class: "slider" }, element("span", {}, String(d + 1)), input, value) };
  });
  const title = element("h4"), back = element("button", { type: "button" }, "As routed");
  back.addEventListener("click", () => { view.moved = null; draw(); });
  const own = () => capsuleOf(model, view.out.capsules, view.ofClass());
  const draw = () => {
    const k = view.ofClass(), routed = own(), capsule = view.moved ?? routed;
    const limit = Math.max(0.5, Math.ceil(2 * Math.max(...routed.map(Math.abs))) / 2);
    paint(whole, view.out.reconstruction);
    whole.setAttribute("aria-label", `reconstruction from the capsule of ${named(view.longest())}`);
    wholeFigure.lastChild.textContent = `reconstruction: ${named(view.longest())}`;
    paint(part, decode(model, capsule, k));
    part.setAttribute("aria-label", `what the decoder makes of the capsule of ${page.classes[k]}`);
    partFigure.lastChild.textContent = `capsule of ${page.classes[k]}${view.moved ? ", moved" : ""}`;
    title.textContent = `The ${model.class_dim} dimensions of ${page.classes[k]}'s capsule, length ${norm(capsule).toFixed(3)}`;
    back.disabled = !view.moved;
    sliders.forEach(({ input, value }, d) => {
      input.min = -limit;
      input.max = limit;
      if (document.activeElement !== input || !view.moved) input.value = capsule[d];
      value.textContent = capsule[d].toFixed(2).replace("-0.00", "0.00");
    });
  };
  const place = element("div", {}, element("div", { class: "pictures" }, wholeFigure, partFigure), title,
    element("div", { class: "sliders" }, ...sliders.map(({ row }) => row)), element("p", {}, back));
  return { place, draw };
}

// A card for every iteration: what it couples to the class over the image, and the lengths of the capsules.
function routingPart(view) {
  const cards = element("div", { class: "steps" }), title = element("h4"), scale = element("p", { class: "quiet" });
  const place = element("div", {}, title, cards, scale), trained = view.model.routing.iterations;
  if (trained) {
    const most = Math.max(MOST_ITERATIONS, trained), input = element("input", { type: "number", min: 1, max: most, value: trained });
    input.addEventListener("change", () => {
      view.iterations = Math.min(most, Math.max(1, Math.round(Number(input.value)) || trained));
      input.value = view.iterations;
      view.run();
      view.draw();
    });
    place.append(element("p", {}, element("label", {}, "iterations r ", input), element("span", { class: "quiet" }, ` trained with ${trained}`)));
  }
  const draw = () => {
    const { model, out } = view, k = view.ofClass(), kind = byId("kind").value;
    const maps = out.steps.map((step) => overImage(positionMap(model, out, step, k, kind), out.grid, page.shape, model.kernel));
    const most = Math.max(...maps.map((map) => map.reduce((a, b) => Math.max(a, Math.abs(b)), 0)));
    title.textContent = `Routing to ${page.classes[k]}, iteration by iteration`;
    scale.textContent = most < NOTHING ? "All couplings are uniform." : `Strongest colour: ${rounded(most)}${kind === "couplings" ? "" : "; blue is negative"}.`;
    fit(cards, out.steps.length, (t) => {
      const card = element("button", { type: "button", class: "step" }, element("canvas", { class: "picture", "aria-hidden": "true" }), element("span", { class: "mini" }), element("span", {}));
      card.addEventListener("click", () => { state.iteration = t; drawAll(); });
      return card;
    });
    maps.forEach((map, t) => {
      const card = cards.children[t], [canvas, mini, words] = card.children, { activations } = out.steps[t];
      paint(canvas, state.pixels, map, Math.max(most, NOTHING));
      words.textContent = `${t + 1}: ${activations[k].toFixed(3)}`;
      card.setAttribute("aria-pressed", String(out.steps[t] === view.step()));
      card.setAttribute("aria-label", `iteration ${t + 1}: capsule of ${page.classes[k]} ${activations[k].toFixed(3)}; couplings over the image`);
      const shown = greatest(out.activations, ROWS).sort((a, b) => a - b);
      fit(mini, shown.length, () => element("i"));
      shown.forEach((of, i) => {
        mini.children[i].style.height = `${100 * Math.min(1, Math.max(0.02, activations[of]))}%`;
        mini.children[i].classList.toggle("chosen", of === k);
      });
    });
  };
  return { place, draw };
}

// Give a place so many children, made by number.
function fit(place, count, make) {
  while (place.children.length > count) place.lastChild.remove();
  while (place.children.length < count) place.append(make(place.children.length));
}
