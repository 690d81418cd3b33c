// The forward pass of a CapsNet: capsnet_jax/models/capsnet.py, ops/squash.py and routing/, for one image.
//
// Arrays are flat, the last axis fastest, in the order of JAX's: images [height, width, channels], kernels HWIO,
// W [inputs, classes, primary_dim, class_dim], votes [inputs, classes, class_dim], couplings [inputs, classes].
"use strict";

const EPSILON = 1e-7; // as in ops/squash.py
const LEAST = 1e-12; // as in routing/self_routing.py

// Text in base64 → its bytes.
function toBytes(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

// Bytes of little-endian float16 → float32.
function fromHalves(bytes) {
  const view = new DataView(bytes.buffer), values = new Float32Array(bytes.length / 2);
  const table = new Float32Array(65536); // of all the float16 that there are
  for (let bits = 0; bits < 65536; bits++) {
    const exponent = (bits >> 10) & 31, fraction = bits & 1023, sign = bits >> 15 ? -1 : 1;
    table[bits] = sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
  }
  for (let i = 0; i < values.length; i++) values[i] = table[view.getUint16(2 * i, true)];
  return values;
}

// A model as the page brings it → the same with its arrays by name.
function unpackModel(packed) {
  const values = fromHalves(toBytes(packed.weights)), arrays = {};
  let start = 0;
  for (const [name, shape] of packed.arrays) {
    const size = shape.reduce((product, side) => product * side, 1);
    arrays[name] = values.subarray(start, start += size);
  }
  return { ...packed, weights: null, arrays };
}

// The arrays whose names begin so: {"squash/bias": …} of "routing/" is what is named "routing/squash/bias".
function arraysUnder(arrays, prefix) {
  const named = Object.entries(arrays).filter(([name]) => name.startsWith(prefix));
  return Object.fromEntries(named.map(([name, values]) => [name.slice(prefix.length), values]));
}

// The product of a [rows, inner] and b [inner, columns]. Two rows by four columns at a time stay in registers; at the
// borders some are computed twice.
function matmul(a, b, rows, inner, columns) {
  const out = new Float32Array(rows * columns), panel = new Float64Array(4 * inner);
  for (let n = 0; n < columns; n += 4) {
    const n1 = Math.min(n + 1, columns - 1), n2 = Math.min(n + 2, columns - 1), n3 = Math.min(n + 3, columns - 1);
    for (let k = 0, p = 0, row = 0; k < inner; k++, p += 4, row += columns) {
      panel[p] = b[row + n]; panel[p + 1] = b[row + n1]; panel[p + 2] = b[row + n2]; panel[p + 3] = b[row + n3];
    }
    for (let m = 0; m < rows; m += 2) {
      const m1 = Math.min(m + 1, rows - 1), first = m * inner, second = m1 * inner;
      let s00 = 0, s01 = 0, s02 = 0, s03 = 0, s10 = 0, s11 = 0, s12 = 0, s13 = 0;
      for (let k = 0, p = 0; k < inner; k++, p += 4) {
        const x = a[first + k], y = a[second + k], p0 = panel[p], p1 = panel[p + 1], p2 = panel[p + 2], p3 = panel[p + 3];
        s00 += x * p0; s01 += x * p1; s02 += x * p2; s03 += x * p3;
        s10 += y * p0; s11 += y * p1; s12 += y * p2; s13 += y * p3;
      }
      const i = m * columns, j = m1 * columns;
      out[i + n] = s00; out[i + n1] = s01; out[i + n2] = s02; out[i + n3] = s03;
      out[j + n] = s10; out[j + n1] = s11; out[j + n2] = s12; out[j + n3] = s13;
    }
  }
  return out;
}

// A convolution without padding, as a product of patches and kernel (im2col) → {values, shape}.
function convolve({ values, shape: [height, width, channels] }, kernel, bias, side, stride) {
  const rows = Math.floor((height - side) / stride) + 1, columns = Math.floor((width - side) / stride) + 1;
  const line = side * channels, inner = side * line, filters = bias.length;
  const patches = new Float32Array(rows * columns * inner);
  let at = 0;
  for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) for (let y = 0; y < side; y++) {
    const start = ((row * stride + y) * width + column * stride) * channels;
    patches.set(values.subarray(start, start + line), at);
    at += line;
  }
  const out = matmul(patches, kernel, rows * columns, inner, filters);
  for (let i = 0; i < out.length; i++) out[i] += bias[i % filters];
  return { values: out, shape: [rows, columns, filters] };
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

const norm = (v) => Math.sqrt(dot(v, v));
const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const scaled = (v, factor) => v.map((x) => factor * x);

// Each squash of one vector s; `learned` holds {weights, bias} of those that learn.
const SQUASHES = {
  sabour: (s) => scaled(s, norm(s) / (1 + dot(s, s))),
  exponential: (s) => { const n = norm(s); return scaled(s, n > 0 ? -Math.expm1(-n) / n : 1); },
  half: (s) => scaled(s, norm(s) / (0.5 + dot(s, s))),
  decoupled: (s, learned) => scaled(s, presence(s, learned) / Math.sqrt(dot(s, s) + EPSILON)),
  layer_norm: (s) => {
    const mean = s.reduce((sum, x) => sum + x, 0) / s.length, centred = s.map((x) => x - mean);
    return scaled(centred, 1 / Math.sqrt(dot(centred, centred) / s.length + EPSILON));
  },
};

// sigmoid(w · v + b).
function presence(v, learned) {
  return sigmoid(dot(v, learned.weights) + learned.bias[0]);
}

// Vectors [count, dim], each squashed.
function squashAll(name, vectors, dim, learned) {
  const out = new Float32Array(vectors.length);
  for (let i = 0; i < out.length; i += dim) out.set(SQUASHES[name](vectors.subarray(i, i + dim), learned), i);
  return out;
}

// How present each squashed vector is: its length, or what a learned direction says where all are equally long.
function activationsOf(name, vectors, dim, learned) {
  return Float32Array.from({ length: vectors.length / dim }, (_, i) => {
    const v = vectors.subarray(i * dim, (i + 1) * dim);
    return name === "layer_norm" ? presence(v, learned) : norm(v);
  });
}

// û_io = W_io u_i; positions may share W, whose rows then repeat.
function makeVotes(primary, weights, { primary_dim, classes, class_dim }) {
  const inputs = primary.length / primary_dim, parents = classes * class_dim, votes = new Float32Array(inputs * parents);
  const rows = weights.length / (primary_dim * parents);
  for (let i = 0; i < inputs; i++) for (let o = 0; o < classes; o++) {
    const out = i * parents + o * class_dim, matrix = ((i % rows) * classes + o) * primary_dim * class_dim;
    for (let k = 0; k < primary_dim; k++) {
      const u = primary[i * primary_dim + k], row = matrix + k * class_dim;
      for (let d = 0; d < class_dim; d++) votes[out + d] += u * weights[row + d];
    }
  }
  return votes;
}

// s_o = Σ_i c_io û_io.
function weightedSum(votes, couplings, classes, dim) {
  const sum = new Float64Array(classes * dim);
  for (let io = 0; io < couplings.length; io++) {
    const c = couplings[io], from = io * dim, to = (io % classes) * dim;
    for (let d = 0; d < dim; d++) sum[to + d] += c * votes[from + d];
  }
  return Float32Array.from(sum);
}

// û_io · v_o for vectors v [classes, dim].
function agreements(votes, vectors, classes, dim) {
  return Float32Array.from({ length: votes.length / dim }, (_, io) => {
    let sum = 0;
    for (let d = 0, from = io * dim, to = (io % classes) * dim; d < dim; d++) sum += votes[from + d] * vectors[to + d];
    return sum;
  });
}

// A softmax over the parents of each input; an orphan of logit 0 may take part, and is left out.
function softmax(logits, classes, orphan = false) {
  const out = new Float32Array(logits.length);
  for (let i = 0; i < logits.length; i += classes) {
    const row = logits.subarray(i, i + classes);
    const most = Math.max(...row, orphan ? 0 : -Infinity), shares = row.map((b) => Math.exp(b - most));
    const total = shares.reduce((sum, share) => sum + share, orphan ? Math.exp(-most) : 0);
    out.set(scaled(shares, 1 / total), i);
  }
  return out;
}

// A softmax over the inputs of each parent, which is a common mistake.
function softmaxOverInputs(logits, classes) {
  const out = new Float32Array(logits.length);
  for (let o = 0; o < classes; o++) {
    const column = softmax(logits.filter((_, io) => io % classes === o), logits.length / classes);
    column.forEach((share, i) => { out[i * classes + o] = share; });
  }
  return out;
}

// (b − min b) / (max b − min b) of each input's logits; 1 where all are equal.
function maxMin(logits, classes) {
  const out = new Float32Array(logits.length);
  for (let i = 0; i < logits.length; i += classes) {
    const row = logits.subarray(i, i + classes), least = Math.min(...row), span = Math.max(...row) - least;
    out.set(row.map((b) => (span > 0 ? (b - least) / span : 1)), i);
  }
  return out;
}

// One step of a router's trace: parents squashed from their sums.
function step(sums, couplings, logits, { settings, learned, dim }) {
  const own = arraysUnder(learned, "squash/"), capsules = squashAll(settings.squash, sums, dim, own);
  return { capsules, activations: activationsOf(settings.squash, capsules, dim, own), couplings, logits };
}

// Routing by agreement: couplings from logits, parents from couplings, and b_io ← b_io + û_io · v_o.
function agree(votes, layer, couple) {
  const { settings, learned, classes, dim } = layer, steps = [];
  let logits = new Float32Array(votes.length / dim);
  for (let t = 0; t < settings.iterations; t++) {
    const couplings = couple(logits), sums = weightedSum(votes, couplings, classes, dim);
    if (learned.bias) sums.forEach((_, i) => { sums[i] += learned.bias[i]; });
    steps.push(step(sums, couplings, logits, layer));
    const agreed = agreements(votes, steps[t].capsules, classes, dim);
    logits = logits.map((b, io) => b + agreed[io]);
  }
  return steps;
}

// Couplings that no vote changes: the softmax of a prior.
function fixed(votes, layer, prior) {
  const couplings = softmax(prior, layer.classes);
  return [step(weightedSum(votes, couplings, layer.classes, layer.dim), couplings, prior, layer)];
}

// Each router: (votes, layer) → its iterations, each {capsules, activations, couplings, logits}. A layer holds the
// router's settings, what it has learned, its number of classes and their dim, and the primary capsules.
const ROUTERS = {
  dynamic: (votes, layer) => agree(votes, layer, (logits) => {
    const { softmax_over, temperature, leaky } = layer.settings, cooled = scaled(logits, 1 / temperature);
    return softmax_over === "inputs" ? softmaxOverInputs(cooled, layer.classes) : softmax(cooled, layer.classes, leaky);
  }),
  max_min: (votes, layer) => agree(votes, layer, (logits) => maxMin(logits, layer.classes)),
  uniform: (votes, layer) => fixed(votes, layer, new Float32Array(votes.length / layer.dim)),
  learned: (votes, layer) => fixed(votes, layer, layer.learned.prior),
  random: (votes, layer) => fixed(votes, layer, layer.learned.prior),
  // C_io = softmax(û_io · Σ_k û_ko / √D) + b_io.
  self_attention: (votes, layer) => {
    const { classes, dim, learned } = layer;
    const total = weightedSum(votes, new Float32Array(votes.length / dim).fill(1), classes, dim);
    const scores = scaled(agreements(votes, total, classes, dim), 1 / Math.sqrt(dim));
    const couplings = softmax(scores, classes).map((share, io) => share + learned.bias[io]);
    return [step(weightedSum(votes, couplings, classes, dim), couplings, scores, layer)];
  },
  // r_io = softmax(p_o · v_io / √d), p_o = LayerNorm(Σ_i r_io v_io).
  inverted_attention: (votes, layer) => {
    const { classes, dim, settings, learned } = layer, own = arraysUnder(learned, "squash/"), steps = [];
    let logits = new Float32Array(votes.length / dim);
    for (let t = 0; t < settings.iterations; t++) {
      const couplings = softmax(logits, classes);
      const now = step(weightedSum(votes, couplings, classes, dim), couplings, logits, layer);
      if (learned.gain) {
        now.capsules = now.capsules.map((x, i) => x * learned.gain[i % dim] + learned.bias[i % dim]);
        now.activations = activationsOf(settings.squash, now.capsules, dim, own);
      }
      steps.push(now);
      logits = scaled(agreements(votes, now.capsules, classes, dim), 1 / Math.sqrt(dim));
    }
    return steps;
  },
  // c_i = softmax(W_i u_i + b_i); parents are means of votes, weighted by c_io a_i.
  self_routing: (votes, { classes, dim, learned, primary, present }) => {
    const inputs = present.length, size = primary.length / inputs, logits = Float32Array.from(learned.bias);
    for (let i = 0; i < inputs; i++) for (let k = 0; k < size; k++) for (let o = 0; o < classes; o++) {
      logits[i * classes + o] += primary[i * size + k] * learned.weights[(i * size + k) * classes + o];
    }
    const couplings = softmax(logits, classes), sent = couplings.map((c, io) => c * present[Math.floor(io / classes)]);
    const received = weightedSum(sent, sent.map(() => 1), classes, 1), total = present.reduce((sum, a) => sum + a, 0);
    const ratio = (x, by) => (by > LEAST ? x / by : 0);
    const capsules = weightedSum(votes, sent, classes, dim).map((x, i) => ratio(x, received[Math.floor(i / dim)]));
    return [{ capsules, activations: received.map((x) => ratio(x, total)), couplings, logits }];
  },
};

// Pixels in [0, 1] [height, width, channels] → everything that routing starts from.
function primaryCapsules(model, pixels) {
  const { arrays, kernel, types, primary_dim, squash } = model;
  const conv1 = convolve({ values: pixels, shape: model.shape }, arrays["conv1/kernel"], arrays["conv1/bias"], kernel, 1);
  const share = model.divide_primary ? 1 / types : 1;
  conv1.values = conv1.values.map((x) => Math.max(0, x) * share);
  const made = convolve(conv1, arrays["primary/kernel"], arrays["primary/bias"], kernel, 2);
  const learned = arraysUnder(arrays, "primary_squash/"), primary = squashAll(squash, made.values, primary_dim, learned);
  const grid = [made.shape[0], made.shape[1], types];
  return { primary, present: activationsOf(squash, primary, primary_dim, learned), grid };
}

// Votes, and every iteration of routing them; so many iterations, or as many as the model was trained with.
function route(model, primary, present, iterations = model.routing.iterations) {
  const votes = makeVotes(primary, model.arrays["class_capsules/W"], model);
  const learned = arraysUnder(model.arrays, "class_capsules/routing/"), settings = { ...model.routing, iterations };
  const layer = { settings, learned, classes: model.classes, dim: model.class_dim, primary, present };
  return { votes, steps: ROUTERS[settings.name](votes, layer) };
}

// A fully connected layer; inputs of 0 cost nothing, as those of the classes that are masked.
function dense(x, kernel, bias) {
  const out = Float64Array.from(bias), width = bias.length;
  for (let i = 0; i < x.length; i++) if (x[i] !== 0) {
    for (let j = 0, row = i * width; j < width; j++) out[j] += x[i] * kernel[row + j];
  }
  return Float32Array.from(out);
}

// What the decoder makes of one class's capsule alone: pixels in (0, 1).
function decode(model, capsule, ofClass) {
  const { arrays } = model;
  let x = new Float32Array(model.classes * model.class_dim);
  x.set(capsule, ofClass * model.class_dim);
  for (let n = 1; arrays[`decoder/hidden${n}/kernel`]; n++) {
    x = dense(x, arrays[`decoder/hidden${n}/kernel`], arrays[`decoder/hidden${n}/bias`]).map((value) => Math.max(0, value));
  }
  return dense(x, arrays["decoder/pixels/kernel"], arrays["decoder/pixels/bias"]).map(sigmoid);
}

// The classes of greatest activation, the greatest first.
function greatest(activations, count) {
  return Array.from(activations.keys()).sort((a, b) => activations[b] - activations[a]).slice(0, count);
}

// The class's vector among capsules [classes, dim].
function capsuleOf(model, capsules, ofClass) {
  return capsules.slice(ofClass * model.class_dim, (ofClass + 1) * model.class_dim);
}

// Run a model on pixels in [0, 1] → primary capsules, votes, every iteration, and the last one's capsules, activations,
// couplings and reconstruction: of the longest capsule, or the sum, at most 1, of as many as an image shows.
function forward(model, pixels, iterations = model.routing.iterations) {
  const { primary, present, grid } = primaryCapsules(model, pixels);
  const { votes, steps } = route(model, primary, present, iterations), last = steps[steps.length - 1];
  let reconstruction = null;
  if (model.decodes) {
    const seen = greatest(last.activations, model.shown).map((k) => decode(model, capsuleOf(model, last.capsules, k), k));
    reconstruction = seen.reduce((sum, each) => sum.map((x, i) => Math.min(1, x + each[i])));
  }
  return { primary, grid, votes, steps, ...last, reconstruction };
}

// How much each position is coupled to a class, [rows, columns]: summed over its types, as interpret/capsule_maps.py has
// it. Kinds: "couplings" c |u|, "difference" the same of couplings less uniform ones, "coupled_votes" c û · v.
function positionMap(model, out, { capsules, couplings }, ofClass, kind) {
  const [rows, columns, types] = out.grid, { classes, class_dim: dim, primary_dim } = model;
  const mean = couplings.reduce((sum, c) => sum + c, 0) / couplings.length, whole = 1 / Math.round(1 / mean);
  const uniform = Math.abs(mean - whole) < 1e-3 * whole ? whole : mean;  // max-min couplings have any mean
  const agreed = kind === "coupled_votes" ? agreements(out.votes, capsules, classes, dim) : null, map = new Float32Array(rows * columns);
  for (let i = 0; i < rows * columns * types; i++) {
    const io = i * classes + ofClass, c = kind === "difference" ? couplings[io] - uniform : couplings[io];
    const strength = agreed ? agreed[io] : norm(out.primary.subarray(i * primary_dim, (i + 1) * primary_dim));
    map[Math.floor(i / types)] += c * strength;
  }
  return map;
}

// Spread a map of positions over the image, bilinearly between the centres of what the positions see.
function overImage(map, [rows, columns], [height, width], kernel) {
  const at = (pixel, positions) => Math.min(Math.max((pixel - (kernel - 1)) / 2, 0), positions - 1);
  const out = new Float32Array(height * width);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    const row = at(y, rows), column = at(x, columns), top = Math.floor(row), left = Math.floor(column);
    const below = Math.min(top + 1, rows - 1), right = Math.min(left + 1, columns - 1), v = row - top, h = column - left;
    const upper = map[top * columns + left] * (1 - h) + map[top * columns + right] * h;
    const lower = map[below * columns + left] * (1 - h) + map[below * columns + right] * h;
    out[y * width + x] = upper * (1 - v) + lower * v;
  }
  return out;
}
