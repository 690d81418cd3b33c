// A drawing or a picture file, as the data set has its images: capsnet_jax/data/ink.py and data/picture.py, made simple.
//
// The ground may be lit unevenly, but dirt and tables are taken for ink here; `launch.py --predict` leaves them out.
"use strict";

const THICKEST = 0.35, EDGE = 0.15, THINNEST = 2, SAME_SIZE = 0.12, FULL = 0.9, SOFT = 0.3; // the first four as in ink.py
const LONGEST = 160; // pixels of a picture's longer side, to find ink in
const LUMINANCE = [0.299, 0.587, 0.114];

// Map a function over windows of 2 · reach + 1 pixels along rows, and then along columns: their greatest, or least.
function filterSquare({ values, width, height }, reach, choose) {
  const along = (from, count, step, lines, jump) => {
    const out = new Float32Array(from.length);
    for (let line = 0; line < lines; line++) for (let i = 0; i < count; i++) {
      let best = from[line * jump + i * step];
      for (let j = Math.max(0, i - reach); j <= Math.min(count - 1, i + reach); j++) best = choose(best, from[line * jump + j * step]);
      out[line * jump + i * step] = best;
    }
    return out;
  };
  return { values: along(along(values, width, 1, height, width), height, width, width, 1), width, height };
}

// The rows and columns that hold every value above a limit; null where there is none.
function boxOf({ values, width, height }, limit) {
  let left = width, right = -1, top = height, bottom = -1;
  values.forEach((value, i) => {
    if (!(value > limit)) return;
    const x = i % width, y = Math.floor(i / width);
    left = Math.min(left, x); right = Math.max(right, x); top = Math.min(top, y); bottom = Math.max(bottom, y);
  });
  return right < 0 ? null : { left, top, width: right - left + 1, height: bottom - top + 1 };
}

function crop({ values, width }, box) {
  const out = new Float32Array(box.width * box.height);
  for (let y = 0; y < box.height; y++) {
    const start = (box.top + y) * width + box.left;
    out.set(values.subarray(start, start + box.width), y * box.width);
  }
  return { values: out, width: box.width, height: box.height };
}

// Every pixel is the mean over the part that it stands for.
function resize(picture, width, height) {
  const shares = (from, to) => Array.from({ length: to }, (_, i) => {
    const low = i * from / to, high = (i + 1) * from / to, parts = [];
    for (let j = Math.floor(low); j < Math.min(from, Math.ceil(high)); j++) parts.push([j, Math.min(high, j + 1) - Math.max(low, j)]);
    return parts.map(([j, part]) => [j, part / (high - low)]);
  });
  const values = new Float32Array(width * height), columns = shares(picture.width, width);
  shares(picture.height, height).forEach((rows, y) => columns.forEach((parts, x) => {
    for (const [row, share] of rows) for (const [column, part] of parts) values[y * width + x] += share * part * picture.values[row * picture.width + column];
  }));
  return { values, width, height };
}

// How wide lines are: twice their area over their outline, which crosses 4/π as many sides of pixels as it is long, in
// the mean over its directions.
function lineWidth({ values, width, height }) {
  let area = 0, edges = 0;
  const inked = (x, y) => x >= 0 && x < width && y >= 0 && y < height && values[y * width + x] > 0.5;
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) if (inked(x, y)) {
    area++;
    edges += !inked(x - 1, y) + !inked(x + 1, y) + !inked(x, y - 1) + !inked(x, y + 1);
  }
  return edges ? 8 / Math.PI * area / edges : 0;
}

// A drawing as large as the data set's are; lines that would become thinner than THINNEST are thickened first.
function scaleInk(ink, scale) {
  const missing = THINNEST / scale - lineWidth(ink);
  if (missing >= 1) {
    const reach = Math.round(missing / 2), side = Math.max(ink.width, ink.height);
    const padded = { values: new Float32Array((ink.width + 2 * reach) * (ink.height + 2 * reach)), width: ink.width + 2 * reach, height: ink.height + 2 * reach };
    for (let y = 0; y < ink.height; y++) padded.values.set(ink.values.subarray(y * ink.width, (y + 1) * ink.width), (y + reach) * padded.width + reach);
    ink = filterSquare(padded, reach, Math.max);
    scale *= side / (side + 2 * reach);
  }
  return resize(ink, Math.max(1, Math.round(scale * ink.width)), Math.max(1, Math.round(scale * ink.height)));
}

// Ink, from 0 to 1, placed in an image as the data set places its drawings: `frame` says the longer side and whether the
// centre of mass is in the middle, or the box. Null where there is no ink.
function frameInk(ink, frame, height, width) {
  const box = boxOf(ink, EDGE);
  if (!box) return null;
  const scale = frame.side / Math.max(box.width, box.height);
  const drawn = Math.abs(scale - 1) > SAME_SIZE ? scaleInk(crop(ink, box), scale) : crop(ink, boxOf(ink, 0));
  let mass = 0, atX = 0, atY = 0;
  drawn.values.forEach((value, i) => {
    const weight = frame.centre === "mass" ? value : 1;
    mass += weight; atX += weight * (i % drawn.width); atY += weight * Math.floor(i / drawn.width);
  });
  const half = frame.centre === "mass" ? 0 : 0.5; // MNIST's are half a pixel off
  const place = (side, size, middle) => Math.min(Math.max(Math.round(side / 2 - half - middle), 0), Math.max(0, side - size));
  const left = place(width, drawn.width, atX / mass), top = place(height, drawn.height, atY / mass);
  const values = new Float32Array(width * height);
  for (let y = 0; y < Math.min(drawn.height, height); y++) for (let x = 0; x < Math.min(drawn.width, width); x++) {
    values[(top + y) * width + left + x] = drawn.values[y * drawn.width + x];
  }
  const framed = { values, width, height };
  return frame.transposed ? transpose(framed) : framed;
}

function transpose({ values, width, height }) {
  return { values: values.map((_, i) => values[(i % height) * width + Math.floor(i / height)]), width: height, height: width };
}

// The brightness of the ground: a closing fills in what is dark and thin.
function lightGround(grey) {
  const reach = Math.round(THICKEST / 2 * Math.max(grey.width, grey.height));
  return filterSquare(filterSquare(grey, reach, Math.max), reach, Math.min);
}

function variation({ values, width }) {
  return values.reduce((sum, value, i) => sum + (i % width ? Math.abs(value - values[i - 1]) : 0) + (i >= width ? Math.abs(value - values[i - width]) : 0), 0);
}

// The threshold that parts values best into two groups (Otsu 1979).
function otsu(values) {
  const bins = 64, most = values.reduce((a, b) => Math.max(a, b), 0) || 1, counts = new Float64Array(bins);
  values.forEach((value) => { counts[Math.min(bins - 1, Math.floor(Math.max(0, value) / most * bins))]++; });
  const total = values.length, sum = counts.reduce((s, n, i) => s + n * i, 0);
  let below = 0, sumBelow = 0, best = 0, greatestVariance = -1;
  for (let i = 0; i < bins - 1; i++) {
    below += counts[i]; sumBelow += counts[i] * i;
    const above = total - below;
    if (!below || !above) continue;
    const variance = below * above * (sumBelow / below - (sum - sumBelow) / above) ** 2;
    if (variance > greatestVariance) { greatestVariance = variance; best = (i + 1) / bins * most; }
  }
  return best;
}

// How much ink there is at every pixel of a grey picture, from 0 to 1, and whether it is darker than its ground: of two
// grounds the smoother is the true one. Null where nothing stands out.
function findInk(grey) {
  const [dark, light] = [grey, { ...grey, values: grey.values.map((value) => 1 - value) }].map((picture) => ({ picture, ground: lightGround(picture) }));
  const isDark = variation(dark.ground) <= variation(light.ground), { picture, ground } = isDark ? dark : light;
  const strength = picture.values.map((value, i) => (ground.values[i] - value) / Math.max(ground.values[i], 0.1));
  const limit = otsu(strength), marked = strength.filter((value) => value > limit).sort();
  if (!marked.length || limit < 3 / 255) return null;
  const full = marked[Math.floor(FULL * (marked.length - 1))];
  const values = strength.map((value) => (value > SOFT * limit ? Math.min(1, value / full) : 0));
  return { ink: { ...grey, values }, isDark };
}

// What the data set's transform does to one channel.
function transformed({ values, width, height }, name) {
  if (name === "inverted") return { values: values.map((value) => 1 - value), width, height };
  if (name !== "rotated") return { values, width, height };
  return { values: values.map((_, i) => values[(i % height) * width + width - 1 - Math.floor(i / height)]), width: height, height: width };
}
