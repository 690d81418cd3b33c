// The page: one image at a time, shown to all networks. `sources.js` says where it comes from, `panel.js` what a network
// makes of it; `capsnet.js` computes, `picture.js` prepares drawings and pictures.
"use strict";

const PLAY_MS = 900;

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

const panels = models.map(panel);
const tests = gallery();

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
  byId("told").textContent = pixels.some((value) => value > 0) ? `${words}; ${answers}.` : `${words}.`;
}

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
