// The page: where an image comes from, and what each network makes of it. `capsnet.js` computes, `picture.js` prepares.
"use strict";

const PAD = 224; // pixels of the pad's width
const PEN = 20; // of the pad: about two pixels of an image of 28
const STEP = 6; // of the pen, by an arrow key
const ROWS = 12; // classes that are told, the ones of greatest length where there are more
const MOST_ITERATIONS = 7;
const PLAY_MS = 900;
const NOTHING = 1e-6; // a map of less is one of rounding errors
const REFUSED = "This is no picture that the browser can read; give a PNG or JPEG file.";

const page = JSON.parse(document.getElementById("data").textContent);
const [HEIGHT, WIDTH, CHANNELS] = page.shape;
const models = page.models.map(unpackModel);
const byId = (id) => document.getElementById(id);
const reduced = matchMedia("(prefers-reduced-motion: reduce)").matches;

// What all networks share: the image, the class that is looked at (null: each one's longest), and the iteration (null: the last).
const state = { pixels: new Float32Array(HEIGHT * WIDTH * CHANNELS), labels: null, chosen: null, iteration: null };

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// ------------------------------------------------------------------------------------------------ pixels on canvases

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

// ------------------------------------------------------------------------------------------------ a network's panel

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
  const title = element("h4"), place = element("div", { class: "bars" }, title, ...rows.map(({ button }) => button));
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
      value.textContent = capsule[d].toFixed(2);
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

// ------------------------------------------------------------------------------------------------ what all share

const panels = models.map(panel);

function drawAll() {
  for (const view of panels) view.draw();
  byId("chosen").value = state.chosen ?? "";
}

function choose(k) {
  state.chosen = k;
  drawAll();
}

// Show an image to all networks.
function show(pixels, words, labels = null) {
  Object.assign(state, { pixels, labels, chosen: null, iteration: null });
  paint(byId("input"), pixels);
  for (const view of panels) view.run();
  drawAll();
  const said = panels.map((view) => named(view.longest()));
  const answers = said.every((answer) => answer === said[0]) ? `${panels.length > 1 ? "both say" : "the network says"} ${said[0]}` : `they say ${said.join(" and ")}`;
  byId("input").setAttribute("aria-label", words);
  byId("told").textContent = `${words}; ${answers}.`;
}

// ------------------------------------------------------------------------------------------------ test images

const testBytes = toBytes(page.images.pixels), size = HEIGHT * WIDTH * CHANNELS;
const testImage = (n) => Float32Array.from(testBytes.subarray(n * size, (n + 1) * size), (value) => value / 255);

// The test images, of which one is chosen by a click or by the arrow keys.
function gallery() {
  const buttons = page.images.labels.map((labels, n) => {
    const canvas = element("canvas"), button = element("button", { type: "button", role: "radio", tabindex: n ? -1 : 0 }, canvas);
    paint(canvas, testImage(n));
    button.setAttribute("aria-label", `test image ${page.images.index[n]}: ${named(labels)}${page.images.wrong[n] ? ", classified wrong" : ""}`);
    button.classList.toggle("wrong", page.images.wrong[n]);
    button.addEventListener("click", () => pick(n));
    return button;
  });
  const pick = (n) => {
    mark(n);
    show(testImage(n), `test image ${page.images.index[n]}, labelled ${named(page.images.labels[n])}`, page.images.labels[n]);
  };
  const mark = (n) => buttons.forEach((button, i) => {
    button.setAttribute("aria-checked", String(i === n));
    button.tabIndex = i === Math.max(0, n) ? 0 : -1;
  });
  byId("gallery").append(...buttons);
  byId("gallery").addEventListener("keydown", (event) => {
    const now = buttons.indexOf(document.activeElement), last = buttons.length - 1;
    const next = { ArrowRight: now + 1, ArrowDown: now + 1, ArrowLeft: now - 1, ArrowUp: now - 1, Home: 0, End: last }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    const n = (next + buttons.length) % buttons.length;
    buttons[n].focus();
    pick(n);
  });
  return { pick, unmark: () => mark(-1) };
}

const tests = gallery();

// ------------------------------------------------------------------------------------------------ drawing, and files

// One channel, framed or as large as an image, through the set's transform to pixels.
function toPixels(channels) {
  const through = channels.map((channel) => transformed(channel, page.transform).values);
  return Float32Array.from({ length: size }, (_, i) => through[(i % CHANNELS) % through.length][Math.floor(i / CHANNELS)]);
}

// The height and width of an image before the set's transform.
const before = page.transform === "rotated" ? [WIDTH, HEIGHT] : [HEIGHT, WIDTH];

// A canvas's pixels, channel by channel, from 0 to 1.
function channelsOf(canvas) {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return [0, 1, 2].map((c) => ({
    values: Float32Array.from({ length: data.length / 4 }, (_, i) => data[4 * i + c] / 255), width: canvas.width, height: canvas.height,
  }));
}

function greyOf(channels) {
  return { ...channels[0], values: channels[0].values.map((_, i) => channels.reduce((sum, { values }, c) => sum + LUMINANCE[c] * values[i], 0)) };
}

// The pad: strokes by mouse and finger, and by the arrow keys; after each the networks look at it.
function drawingPad() {
  const pad = byId("pad"), pen = byId("pen"), context = pad.getContext("2d", { willReadFrequently: true });
  let at = null, cursor = [PAD / 2, PAD / 2], waiting = false;
  pad.width = PAD;
  pad.height = Math.round(PAD * before[0] / before[1]);

  const clear = () => { context.fillStyle = "#000"; context.shadowBlur = 0; context.fillRect(0, 0, pad.width, pad.height); };
  const see = () => {
    waiting = false;
    const [ink] = channelsOf(pad), framed = page.frame ? frameInk(ink, page.frame, ...before) : resize(ink, before[1], before[0]);
    tests.unmark();
    if (framed && boxOf(ink, EDGE)) show(toPixels([framed]), "your drawing");
    else show(toPixels([resize(ink, before[1], before[0])]), "nothing is drawn yet");
  };
  const soon = () => { if (!waiting) { waiting = true; requestAnimationFrame(see); } };
  const line = (from, to) => {
    Object.assign(context, { strokeStyle: "#fff", lineWidth: PEN, lineCap: "round", lineJoin: "round", shadowColor: "#fff", shadowBlur: PEN / 5 });
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(to[0] + 0.01, to[1]);
    context.stroke();
    soon();
  };
  const point = (event) => {
    const box = pad.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * pad.width, (event.clientY - box.top) / box.height * pad.height];
  };
  pad.addEventListener("pointerdown", (event) => { pad.setPointerCapture(event.pointerId); at = point(event); line(at, at); });
  pad.addEventListener("pointermove", (event) => {
    if (!at) return;
    for (const each of event.getCoalescedEvents?.() ?? [event]) { const to = point(each); line(at, to); at = to; }
  });
  for (const name of ["pointerup", "pointercancel"]) pad.addEventListener(name, () => { at = null; });
  const placePen = () => { pen.style.left = `${100 * cursor[0] / pad.width}%`; pen.style.top = `${100 * cursor[1] / pad.height}%`; };
  pad.addEventListener("focus", () => { pen.hidden = !pad.matches(":focus-visible"); placePen(); });
  pad.addEventListener("blur", () => { pen.hidden = true; });
  pad.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Delete" || event.key === "Backspace") { clear(); soon(); }
    if (!move) return;
    event.preventDefault();
    pen.hidden = false;
    const to = [pad.width, pad.height].map((side, axis) => Math.min(side, Math.max(0, cursor[axis] + STEP * move[axis])));
    if (!event.shiftKey) line(cursor, to);
    cursor = to;
    placePen();
  });
  byId("clear").addEventListener("click", () => { clear(); soon(); });
  byId("drawing").hidden = false;
  clear();
}

// Draw a bitmap, cropped to a shape around its middle, on a ground that contrasts with what is opaque.
function onCanvas(bitmap, width, height, cropped) {
  const canvas = element("canvas", { width, height }), context = canvas.getContext("2d", { willReadFrequently: true });
  const wide = cropped ? Math.min(bitmap.width, bitmap.height * width / height) : bitmap.width;
  const high = cropped ? Math.min(bitmap.height, bitmap.width * height / width) : bitmap.height;
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, (bitmap.width - wide) / 2, (bitmap.height - high) / 2, wide, high, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  let opaque = 0, light = 0;
  for (let i = 0; i < data.length; i += 4) { opaque += data[i + 3]; light += data[i + 3] * (data[i] + data[i + 1] + data[i + 2]) / 765; }
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = light > opaque / 2 ? "#000" : "#fff";
  context.fillRect(0, 0, width, height);
  return canvas;
}

// A picture file: its ink framed as the set frames drawings, or the picture scaled.
async function read(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    byId("told").textContent = REFUSED;
    return;
  }
  tests.unmark();
  if (page.frame && byId("frame").checked) {
    const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
    const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(scale * side)));
    const found = findInk(greyOf(channelsOf(onCanvas(bitmap, width, height, false))));
    const framed = found && frameInk(found.ink, page.frame, ...before);
    if (framed) show(toPixels([framed]), `${file.name}: ${found.isDark ? "dark ink on light, inverted" : "light ink on dark"}, centred`);
    else byId("told").textContent = `${file.name} shows no ink.`;
    return;
  }
  const channels = channelsOf(onCanvas(bitmap, before[1], before[0], true));
  show(toPixels(CHANNELS === 1 ? [greyOf(channels)] : channels), `${file.name}, scaled`);
}

function fileChooser() {
  byId("framed").hidden = !page.frame;
  byId("file").addEventListener("change", (event) => {
    if (event.target.files[0]) read(event.target.files[0]);
    event.target.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files[0]) read(event.dataTransfer.files[0]);
  });
}

// ------------------------------------------------------------------------------------------------ start

// Go through the iterations from the first, so that capsules grow and shrink.
function play() {
  const last = Math.max(...panels.map((view) => view.out.steps.length)) - 1;
  let t = 0;
  const next = () => {
    state.iteration = t;
    drawAll();
    byId("play").disabled = t < last;
    if (t++ < last) setTimeout(next, reduced ? 2 * PLAY_MS : PLAY_MS);
  };
  next();
}

function start() {
  byId("about").textContent = `${models.length > 1 ? "Two trained CapsNets" : "A trained CapsNet"}, ${page.dataset}. Draw, give a picture, or take a test image, and see what ${models.length > 1 ? "they make" : "it makes"} of it.`;
  byId("chosen").append(element("option", { value: "" }, "the longest capsule"), ...page.classes.map((name, k) => element("option", { value: k }, name)));
  byId("chosen").addEventListener("change", (event) => choose(event.target.value === "" ? null : Number(event.target.value)));
  byId("kind").addEventListener("change", drawAll);
  byId("play").addEventListener("click", play);
  byId("models").append(...panels.map((view) => view.place));
  if (CHANNELS === 1) drawingPad();
  if (CHANNELS === 1 || CHANNELS === 3) fileChooser(); else byId("files").hidden = true;
  tests.pick(0);
}

start();
