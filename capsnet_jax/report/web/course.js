// Turns the pages, and makes what is moved by hand: a filter that slides, squashes, votes that are routed.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function made(name, attributes = {}, ...children) {
  const drawing = ["svg", "rect", "text", "line", "path", "circle", "g", "title"].includes(name);
  const node = drawing ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const plain = (value, digits = 2) => value.toFixed(digits).replace("-", "−");
const whole = (value) => (Number.isInteger(value) ? String(value) : value.toFixed(1)).replace("-", "−");
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
const dot = (colour) => { const node = made("i"); node.style.background = colour; return node; };

// ---- pages

const pages = [...document.querySelectorAll("section.page")];
let current = 0;

function show() {
  const wanted = pages.findIndex((page) => `#${encodeURIComponent(page.id)}` === location.hash);
  current = Math.max(0, wanted);
  pages.forEach((page, index) => page.classList.toggle("current", index === current));
  const title = pages[current].querySelector("h1").textContent;
  document.getElementById("where").textContent = current ? `${current} of ${pages.length - 1}: ${title}` : "";
  document.getElementById("back").disabled = current === 0;
  document.getElementById("on").disabled = current === pages.length - 1;
  scrollTo(0, 0);
}

function turn(by) {
  const next = clamp(current + by, 0, pages.length - 1);
  if (next === current) return;
  location.hash = pages[next].id;
  show(); // before the event comes, so that no key is lost
}

addEventListener("hashchange", show);
document.getElementById("back").addEventListener("click", () => turn(-1));
document.getElementById("on").addEventListener("click", () => turn(1));
addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, PageUp: -1, ArrowRight: 1, PageDown: 1 }[event.key];
  if (!by || event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
  const used = event.target.closest?.("input, select, [data-keys]");
  const scrolls = event.key.startsWith("Arrow") && event.target.matches?.("pre") && event.target.scrollWidth > event.target.clientWidth;
  if (used || scrolls) return;
  event.preventDefault();
  turn(by);
});
for (const image of document.images) image.loading = "eager"; // a page that was never shown is printed too

// ---- the filter that slides

function grid(values, name) {
  const rows = values.length, columns = values[0].length;
  const most = Math.max(...values.flat().map(Math.abs)) || 1, few = columns <= 8;
  const svg = made("svg", { viewBox: `-.1 -.1 ${columns + .2} ${rows + .2}`, role: "img", "aria-label": name });
  values.forEach((row, r) => row.forEach((value, c) => {
    const cell = made("rect", { class: "cell", x: c, y: r, width: 1, height: 1, "stroke-width": .03 });
    const tint = made("rect", { x: c, y: r, width: 1, height: 1, opacity: .6 * Math.abs(value) / most });
    tint.style.fill = value < 0 ? "#d55e00" : "#0072b2";
    const text = made("text", { x: c + .5, y: r + .52, "font-size": few ? .42 : .36 }, whole(value));
    svg.append(cell, tint, text);
  }));
  return svg;
}

// The cell of a grid under the pointer: [row, column].
function cellAt(svg, event) {
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  return [Math.floor(point.y), Math.floor(point.x)];
}

function kernel(place, examples) {
  const chosen = made("select", { "aria-label": "example" }, ...examples.map((each, n) => made("option", { value: n }, each.name)));
  const side = made("div", { class: "side" }), told = made("div", { class: "side", "aria-live": "polite" });
  let example, inputs, outputs, frame, mark, row = 0, column = 0;

  function start() {
    example = examples[chosen.value];
    const size = example.kernel.length;
    [row, column] = [0, 0];
    inputs = grid(example.image, "input; the arrow keys move the filter");
    inputs.setAttribute("tabindex", 0);
    inputs.dataset.keys = "";
    outputs = grid(example.output, "output");
    frame = made("rect", { class: "frame", width: size, height: size });
    mark = made("rect", { class: "frame", width: 1, height: 1 });
    inputs.append(frame);
    outputs.append(mark);
    const under = (event) => { const [r, c] = cellAt(inputs, event); move(r - (size >> 1), c - (size >> 1)); };
    const at = (event) => move(...cellAt(outputs, event));
    for (const kind of ["pointerdown", "pointermove"]) { inputs.addEventListener(kind, under); outputs.addEventListener(kind, at); }
    inputs.addEventListener("keydown", (event) => {
      const step = ARROWS[event.key];
      if (!step) return;
      event.preventDefault();
      move(row + step[1], column + step[0]);
    });
    side.replaceChildren(made("div", {}, made("h3", {}, "input"), inputs), made("div", {}, made("h3", {}, "output"), outputs));
    move(0, 0);
  }

  function move(r, c) {
    row = clamp(r, 0, example.output.length - 1);
    column = clamp(c, 0, example.output[0].length - 1);
    frame.setAttribute("x", column); frame.setAttribute("y", row);
    mark.setAttribute("x", column); mark.setAttribute("y", row);
    let sum = 0;
    const products = example.kernel.map((weights, i) => made("tr", {}, ...weights.map((weight, j) => {
      const pixel = example.image[row + i][column + j], product = pixel * weight;
      sum += product;
      return made("td", {}, `${whole(pixel)} · ${weight < 0 ? `(${whole(weight)})` : whole(weight)} = ${whole(product)}`);
    })));
    const filter = grid(example.kernel, "filter");
    filter.style.maxWidth = "8rem";
    told.replaceChildren(
      made("div", {}, made("h3", {}, "filter"), filter),
      made("div", {}, made("h3", {}, "pixel · weight"), made("table", { class: "products" }, ...products),
        made("span", { class: "sum" }, "sum ", made("b", {}, whole(sum)), ` in row ${row + 1}, column ${column + 1} of the output`)),
    );
  }

  chosen.addEventListener("change", start);
  place.replaceChildren(chosen, side, told);
  start();
}

// ---- squashes

function squashes(place, { lengths, curves, words }) {
  const width = 600, height = 310, left = 40, low = 45, end = lengths[lengths.length - 1];
  const x = (value) => left + (width - left - 10) * value / end, y = (value) => 10 + (height - low - 10) * (1 - value);
  const svg = made("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "length after a squash against the length before" });
  for (const value of [0, .25, .5, .75, 1]) svg.append(
    made("line", { class: "axis", x1: left, x2: width - 10, y1: y(value), y2: y(value) }),
    made("text", { class: "name", x: left - 18, y: y(value) }, value));
  for (let value = 0; value <= end; value++) svg.append(made("text", { class: "name", x: x(value), y: height - 30 }, value));
  svg.append(made("text", { class: "name", x: (left + width) / 2, y: height - 10 }, "length before: |s|"));
  const names = Object.keys(curves);
  names.forEach((name, n) => {
    const path = made("path", { d: curves[name].map((value, i) => `${i ? "L" : "M"}${x(lengths[i]).toFixed(1)} ${y(value).toFixed(1)}`).join(""), fill: "none", "stroke-width": 2.5 });
    path.style.stroke = COLOURS[n % COLOURS.length];
    svg.append(path);
  });
  const line = made("line", { class: "axis", y1: y(0), y2: y(1), "stroke-dasharray": "4 3" });
  line.style.stroke = "var(--ink)";
  svg.append(line);
  const slider = made("input", { type: "range", min: 0, max: lengths.length - 1, value: lengths.indexOf(1), "aria-label": "length before" });
  const told = made("output"), list = made("tbody");
  function read() {
    const at = Number(slider.value);
    slider.setAttribute("aria-valuetext", plain(lengths[at]));
    line.setAttribute("x1", x(lengths[at])); line.setAttribute("x2", x(lengths[at]));
    told.replaceChildren("|s| = ", made("b", {}, plain(lengths[at])));
    list.replaceChildren(...names.map((name, n) => made("tr", {}, made("th", { scope: "row" }, dot(COLOURS[n % COLOURS.length]), name),
      made("td", {}, plain(curves[name][at], 3)), made("td", { class: "quiet" }, words[name] ?? ""))));
  }
  slider.addEventListener("input", read);
  place.replaceChildren(svg, made("p", {}, slider, " ", told), made("table", {}, list));
  read();
}

// ---- routing by agreement

const norm = (vector) => Math.hypot(...vector);
const squash = (vector) => { const size = norm(vector); return vector.map((value) => value * size / (1 + size * size)); };

function softmax(logits) {
  const most = Math.max(...logits), raised = logits.map((value) => Math.exp(value - most));
  const sum = raised.reduce((a, b) => a + b, 0);
  return raised.map((value) => value / sum);
}

// Procedure 1 of Sabour et al. 2017, as `dynamic_routing` in capsnet_jax/routing/dynamic.py.
// votes[input][parent][dimension] to couplings[iteration][input][parent] and capsules[iteration][parent][dimension].
function route(votes, iterations) {
  const parents = votes[0].map((_, parent) => parent);
  const logits = votes.map(() => parents.map(() => 0));
  const couplings = [], capsules = [];
  for (let iteration = 0; iteration < iterations; iteration++) {
    const shares = logits.map(softmax);
    const made = parents.map((parent) => squash(votes[0][parent].map((_, d) =>
      votes.reduce((sum, vote, input) => sum + shares[input][parent] * vote[parent][d], 0))));
    couplings.push(shares);
    capsules.push(made);
    votes.forEach((vote, input) => parents.forEach((parent) => {
      logits[input][parent] += vote[parent].reduce((sum, value, d) => sum + value * made[parent][d], 0);
    }));
  }
  return { couplings, capsules };
}

function votesInThePlane(place, { votes: drawn, iterations }) {
  let votes = structuredClone(drawn);
  const slider = made("input", { type: "range", min: 1, max: 10, value: iterations, "aria-label": "iterations" });
  const told = made("output"), again = made("button", { type: "button" }, "as at first");
  const names = votes[0].map((_, parent) => "ABCDEF"[parent]);
  const planes = names.map((name, parent) => plane(name, parent));
  const head = made("thead"), body = made("tbody");

  function arrow(svg, colour, width) {
    const line = made("line", { "stroke-width": width, "stroke-linecap": "round" });
    line.style.stroke = colour;
    svg.append(line);
    return (vector) => { line.setAttribute("x2", vector[0]); line.setAttribute("y2", -vector[1]); };
  }

  function plane(name, parent) {
    const svg = made("svg", { viewBox: "-1.35 -1.35 2.7 2.7", role: "group", "aria-label": `votes for parent ${name}` });
    svg.append(made("circle", { class: "axis", r: 1, "stroke-width": .015 }), made("path", { class: "axis", d: "M-1.3 0H1.3M0 -1.3V1.3", "stroke-width": .01 }));
    const capsule = arrow(svg, "var(--ink)", .07);
    const ends = votes.map((_, input) => {
      const colour = COLOURS[input], draw = arrow(svg, colour, .03);
      const handle = made("circle", { class: "handle", r: .08, fill: colour, tabindex: 0, role: "button", "data-keys": "",
        "aria-label": `vote of input ${input + 1} for parent ${name}; the arrow keys move it` });
      const number = made("text", { "font-size": .13, "pointer-events": "none" }, input + 1);
      number.style.fill = "#fff";
      const put = (x, y) => { votes[input][parent] = [clamp(x, -1.25, 1.25), clamp(y, -1.25, 1.25)]; redraw(); };
      handle.addEventListener("pointerdown", (event) => { handle.setPointerCapture(event.pointerId); event.preventDefault(); handle.focus(); });
      handle.addEventListener("pointermove", (event) => {
        if (!handle.hasPointerCapture(event.pointerId)) return;
        const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
        put(point.x, -point.y);
      });
      handle.addEventListener("keydown", (event) => {
        const step = ARROWS[event.key];
        if (!step) return;
        event.preventDefault();
        put(votes[input][parent][0] + .05 * step[0], votes[input][parent][1] - .05 * step[1]);
      });
      return [draw, handle, number];
    });
    svg.append(...ends.flatMap(([, handle, number]) => [handle, number]));
    const length = made("span", { class: "quiet" });
    return { box: made("div", {}, made("h3", {}, `parent ${name} `, length), svg), capsule, ends, length };
  }

  function redraw() {
    const count = Number(slider.value), { couplings, capsules } = route(votes, count);
    planes.forEach(({ capsule, ends, length }, parent) => {
      capsule(capsules[count - 1][parent]);
      length.textContent = `is ${plain(norm(capsules[count - 1][parent]))} long`;
      ends.forEach(([draw, handle, number], input) => {
        const [x, y] = votes[input][parent];
        draw([x, y]);
        handle.setAttribute("cx", x); handle.setAttribute("cy", -y);
        number.setAttribute("x", x); number.setAttribute("y", -y);
        handle.setAttribute("opacity", .35 + .65 * couplings[count - 1][input][parent]);
      });
    });
    told.textContent = `${count} iteration${count > 1 ? "s" : ""}`;
    head.replaceChildren(made("tr", {}, made("th", {}, "iteration"), ...votes.flatMap((_, input) =>
      names.map((name) => made("th", { scope: "col" }, dot(COLOURS[input]), `${input + 1} → ${name}`)))));
    body.replaceChildren(...couplings.map((of, t) => made("tr", {}, made("th", { scope: "row" }, t + 1),
      ...of.flatMap((shares, input) => shares.map((share) => {
        const cell = made("td", {}, plain(share, 3));
        cell.style.background = `color-mix(in srgb, ${COLOURS[input]} ${Math.round(50 * share)}%, transparent)`;
        return cell;
      })))));
  }

  slider.addEventListener("input", redraw);
  again.addEventListener("click", () => { votes = structuredClone(drawn); redraw(); });
  place.replaceChildren(made("div", { class: "side" }, ...planes.map(({ box }) => box)),
    made("p", {}, slider, " ", told, " ", again),
    made("p", { class: "quiet" }, "Thin: votes; a handle is fainter the less it is coupled. Thick: the parent. Circle: length 1."),
    made("table", {}, head, body));
  redraw();
}

for (const place of document.querySelectorAll("[data-kernel]")) kernel(place, JSON.parse(place.dataset.kernel));
for (const place of document.querySelectorAll("[data-squash]")) squashes(place, JSON.parse(place.dataset.squash));
for (const place of document.querySelectorAll("[data-routing]")) votesInThePlane(place, JSON.parse(place.dataset.routing));
document.body.classList.add("turning");
show();
