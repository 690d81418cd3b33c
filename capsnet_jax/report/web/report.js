// Learning curves that can be hovered, and a list of runs that is written when it is opened.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f"];
const WIDTH = 900, HEIGHT = 340, LEFT = 56, RIGHT = 12, TOP = 12, BOTTOM = 34;
const MOST = 10; // settings that are told at an epoch
const HINT = "Move over the curves, or use the arrow keys, to read them.";
const DASHES = ["", "7 4", "2 3", "9 3 2 3"];

const experiments = JSON.parse(document.getElementById("data").textContent);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawing(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

const DIGITS = 4;
const text = (value) => value === null || value === undefined ? "" :
  typeof value === "number" ? String(Number(value.toPrecision(DIGITS))) : typeof value === "object" ? JSON.stringify(value) : String(value);

// The mean over the seeds of each setting, epoch by epoch; null where no seed has a number.
function means(experiment, metric) {
  return experiment.settings.map((name, index) => {
    const runs = experiment.runs.filter((run) => run.setting === index && run.metrics[metric]);
    const length = Math.max(0, ...runs.map((run) => run.metrics[metric].length));
    return Array.from({ length }, (_, epoch) => {
      const values = runs.map((run) => run.metrics[metric][epoch]).filter((value) => Number.isFinite(value));
      return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
    });
  });
}

function ticks(low, high) {
  const step = 10 ** Math.floor(Math.log10((high - low) / 4 || 1));
  const wide = [1, 2, 5, 10].map((factor) => factor * step).find((size) => (high - low) / size <= 6);
  const first = Math.ceil(low / wide) * wide;
  return Array.from({ length: Math.floor((high - first) / wide + 1e-9) + 1 }, (_, n) => first + n * wide);
}

function learningCurves(place, experiment) {
  const metrics = [...new Set(experiment.runs.flatMap((run) => Object.keys(run.metrics)))].filter((name) => name !== "epoch");
  if (!metrics.length) { place.remove(); return; }
  const chosen = element("select", { "aria-label": "metric" });
  for (const name of metrics) chosen.append(element("option", { value: name }, name.replaceAll("_", " ")));
  chosen.value = metrics.includes("validation_error") ? "validation_error" : metrics[0];
  const datasets = [...new Set(experiment.settings.map((setting) => setting.dataset))];
  const dataset = element("select", { "aria-label": "data set" }, ...datasets.map((name) => element("option", { value: name }, name)));
  const svg = drawing("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, tabindex: 0, role: "img" });
  const tip = element("div", { class: "tip", "aria-live": "polite" }, HINT);
  const legend = element("div", { class: "legend" });
  const wanted = experiment.settings.map(() => true);
  let lines = [], epochs = 0, marker = null, epoch = -1;

  const x = (index) => LEFT + (WIDTH - LEFT - RIGHT) * (epochs > 1 ? index / (epochs - 1) : 0.5);

  function draw() {
    const shown = experiment.settings.map((setting, index) => wanted[index] && setting.dataset === dataset.value);
    lines = means(experiment, chosen.value).map((line, index) => (shown[index] ? line : []));
    epochs = Math.max(1, ...lines.map((line) => line.length));
    const values = lines.flat().filter((value) => value !== null);
    const low = Math.min(...values, Infinity), high = Math.max(...values, -Infinity);
    const room = (high - low || Math.abs(high) || 1) * 0.05;
    const bottom = low >= 0 ? Math.max(0, low - room) : low - room, top = high + room;
    const y = (value) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - bottom) / (top - bottom);
    svg.replaceChildren();
    svg.setAttribute("aria-label", `${chosen.value.replaceAll("_", " ")} by epoch, a line for each of ${shown.filter(Boolean).length} settings`);
    for (const value of values.length ? ticks(bottom, top) : []) {
      svg.append(drawing("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }));
      const name = drawing("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" });
      name.textContent = text(value);
      svg.append(name);
    }
    for (const value of ticks(1, Math.max(2, epochs)).filter((value) => Number.isInteger(value) && value <= epochs)) {
      const name = drawing("text", { x: x(value - 1), y: HEIGHT - 14, "text-anchor": "middle" });
      name.textContent = value;
      svg.append(name);
    }
    const unit = drawing("text", { x: WIDTH - RIGHT, y: HEIGHT - 1, "text-anchor": "end" });
    unit.textContent = "epoch";
    svg.append(unit);
    lines.forEach((line, index) => {
      let path = "", down = false;
      line.forEach((value, at) => {
        if (value === null) { down = false; return; }
        path += `${down ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
        if (!down && line[at + 1] === undefined) path += "h0.1";
        down = true;
      });
      const curve = drawing("path", { class: "curve", d: path });
      curve.style.stroke = COLOURS[index % COLOURS.length];
      curve.style.strokeDasharray = DASHES[Math.floor(index / COLOURS.length) % DASHES.length];
      curve.style.strokeLinecap = "round";
      if (path) svg.append(curve);
    });
    marker = drawing("line", { y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
    svg.append(marker);
    buttons.forEach((button, index) => { button.hidden = experiment.settings[index].dataset !== dataset.value; });
    if (epoch >= 0) read(Math.min(epoch, epochs - 1));
  }

  function read(at) {
    epoch = at;
    marker.setAttribute("x1", x(at));
    marker.setAttribute("x2", x(at));
    marker.setAttribute("visibility", "visible");
    const told = lines.map((line, index) => [line[at], index]).filter(([value]) => Number.isFinite(value));
    told.sort((a, b) => a[0] - b[0]);
    const rows = told.slice(0, MOST).map(([value, index]) => {
      const dot = element("i");
      dot.style.background = COLOURS[index % COLOURS.length];
      return element("div", {}, dot, element("b", {}, text(value)), ` ${experiment.settings[index].name}`);
    });
    const rest = told.length - rows.length;
    tip.replaceChildren(element("div", {}, `epoch ${at + 1}, least first`), ...rows, rest > 0 ? `and ${rest} more` : "");
  }

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * WIDTH;
    const index = Math.round((at - LEFT) / (WIDTH - LEFT - RIGHT) * (epochs - 1));
    read(Math.max(0, Math.min(epochs - 1, index)));
  });
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    read(Math.max(0, Math.min(epochs - 1, epoch + step)));
  });
  const buttons = experiment.settings.map((setting, index) => {
    const dot = element("i");
    dot.style.background = COLOURS[index % COLOURS.length];
    const button = element("button", { type: "button", "aria-pressed": "true" }, dot, setting.name);
    button.addEventListener("click", () => {
      wanted[index] = !wanted[index];
      button.setAttribute("aria-pressed", String(wanted[index]));
      draw();
    });
    return button;
  });
  legend.append(...buttons);
  chosen.addEventListener("change", draw);
  dataset.addEventListener("change", draw);
  place.append(element("p", {}, chosen, datasets.length > 1 ? dataset : ""), svg, tip, legend);
  draw();
}

function list(values) {
  const made = element("dl");
  for (const [key, value] of Object.entries(values)) made.append(element("dt", {}, key), element("dd", {}, text(value)));
  return made;
}

function describe(experiment, run) {
  const copy = element("button", { type: "button" }, "copy");
  copy.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(run.command); copy.textContent = "copied"; } catch { copy.textContent = "select it by hand"; }
  });
  const parts = [element("h3", {}, "Result"), list(run.result)];
  if (run.command) parts.unshift(element("p", {}, "This command trains it alone. ", copy), element("pre", {}, element("code", {}, run.command)));
  parts.push(element("h3", {}, "Settings"), list({ ...experiment.common, ...run.settings, seed: run.seed }));
  parts.push(element("h3", {}, "Environment"), list({ ...experiment.environments[run.environment], "code of revision": run.revision }));
  return parts;
}

function listOfRuns(place, experiment) {
  const search = element("input", { type: "search", placeholder: "find runs", "aria-label": "find runs" });
  const items = experiment.runs.map((run) => {
    const error = run.result.test_error;
    const { name: setting, dataset } = experiment.settings[run.setting];
    const name = `${dataset}: ${setting}, seed ${run.seed}`;
    const told = run.diverged >= 0 ? `diverged at step ${run.diverged}` : Number.isFinite(error) ? `test error ${error.toFixed(2)} %` : "";
    const item = element("details", { class: "run" }, element("summary", {}, name, " ", element("span", { class: "quiet" }, told)));
    item.addEventListener("toggle", () => { if (item.open && item.children.length === 1) item.append(...describe(experiment, run)); });
    return [item, `${name} ${run.name} ${told}`.toLowerCase()];
  });
  search.addEventListener("input", () => {
    for (const [item, words] of items) item.hidden = !words.includes(search.value.toLowerCase());
  });
  const all = element("details", {}, element("summary", {}, `${items.length} runs`), element("p", {}, search));
  all.addEventListener("toggle", () => { if (all.open && all.children.length === 2) all.append(...items.map(([item]) => item)); });
  place.append(all);
}

for (const place of document.querySelectorAll("[data-curves]")) learningCurves(place, experiments[place.dataset.curves]);
for (const place of document.querySelectorAll("[data-runs]")) listOfRuns(place, experiments[place.dataset.runs]);
