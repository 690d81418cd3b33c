// Where an image comes from: the test images, a pad to draw on, or a picture file.
"use strict";

const PAD = 224; // pixels of the pad's width
const PEN = 20; // of the pad: about two pixels of an image of 28
const STEP = 6; // of the pen, by an arrow key
const REFUSED = "This is no picture that the browser can read; give a PNG or JPEG file.";

// The test images, of which one is chosen by a click or by the arrow keys.
function gallery() {
  const bytes = toBytes(page.images.pixels), size = HEIGHT * WIDTH * CHANNELS;
  const testImage = (n) => Float32Array.from(bytes.subarray(n * size, (n + 1) * size), (value) => value / 255);
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

// One channel, framed or as large as an image, through the set's transform to pixels.
function toPixels(channels) {
  const through = channels.map((channel) => transformed(channel, page.transform).values);
  return Float32Array.from({ length: HEIGHT * WIDTH * CHANNELS }, (_, i) => through[(i % CHANNELS) % through.length][Math.floor(i / CHANNELS)]);
}

// The height and width of an image before the set's transform.
const beforeTransform = () => (page.transform === "rotated" ? [WIDTH, HEIGHT] : [HEIGHT, WIDTH]);

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
  const before = beforeTransform();
  let at = null, cursor = [PAD / 2, PAD / 2], waiting = false, spent = 0;
  pad.width = PAD;
  pad.height = Math.round(PAD * before[0] / before[1]);

  const clear = () => { context.fillStyle = "#000"; context.shadowBlur = 0; context.fillRect(0, 0, pad.width, pad.height); };
  const see = () => {
    const start = performance.now();
    waiting = false;
    const [ink] = channelsOf(pad), framed = page.frame ? frameInk(ink, page.frame, ...before) : resize(ink, before[1], before[0]);
    tests.unmark();
    if (framed && boxOf(ink, EDGE)) show(toPixels([framed]), "your drawing");
    else show(toPixels([resize(ink, before[1], before[0])]), "nothing is drawn yet");
    spent = performance.now() - start;
  };
  // At most half of the time is for looking, so that the pen follows the hand.
  const soon = () => { if (!waiting) { waiting = true; setTimeout(see, spent); } };
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
  const before = beforeTransform();
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    byId("told").textContent = REFUSED;
    return;
  }
  if (page.frame && byId("frame").checked) {
    const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
    const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(scale * side)));
    const found = findInk(greyOf(channelsOf(onCanvas(bitmap, width, height, false))));
    const framed = found && frameInk(found.ink, page.frame, ...before);
    if (framed) { tests.unmark(); show(toPixels([framed]), `${file.name}: ${found.isDark ? "dark ink on light, inverted" : "light ink on dark"}, centred`); }
    else byId("told").textContent = `${file.name} shows no ink.`;
    return;
  }
  const channels = channelsOf(onCanvas(bitmap, before[1], before[0], true));
  tests.unmark();
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
