/* The timeline: a row for every driver and worker, drawn anew for each span of time.
   Less than a few pixels is not drawn but counted: a column is as strong as it was busy, in the colour
   of the longest run in it, and marked if one in it failed. So a frame costs what the screen holds.
   A frame asks the page nothing but how wide it is, once: asked for each run that took 200 ms. */
const NARROW = 4;  // pixels: a run that has no more is painted by columns
const ROW = 19, NODE_ROW = 24, AXIS = 26, PALETTE = 9;
let GUTTER = 150;
let Ink = {};
const ratio = () => Math.max(1, Math.min(3, devicePixelRatio || 1));

function readInk() {
  const style = getComputedStyle(document.documentElement);
  const get = name => style.getPropertyValue("--" + name).trim();
  Ink = {text: get("text"), soft: get("soft"), faint: get("faint"), line: get("line"), card: get("card"), bad: get("bad"),
    path: get("path"), accent: get("accent"), band: get("band"), on: get("on"), other: get("f9"),
    functions: Array.from({length: PALETTE}, (_, i) => get("f" + i)),
    mixed: Array.from({length: PALETTE + 1}, (_, i) => [1, 3, 5].map(at => parseInt(get("f" + i).slice(at, at + 2), 16))),
    running: get("f0"), blocked: get("f3"), ready: get("f4"), rest: get("f9"), arena: get("f2"), spilled: get("f1"), inline: get("f5")};
}
/* A canvas as large as it is shown; draws in CSS pixels from the left top. */
function fresh(canvas, width, height) {
  const r = ratio(), w = Math.round(width * r), h = Math.round(height * r);
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
    canvas.style.width = width + "px";
    canvas.style.height = height + "px";
  }
  const g = canvas.getContext("2d");
  g.setTransform(r, 0, 0, r, 0, 0);
  g.clearRect(0, 0, width, height);
  return g;
}
const FONT = '12px system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif';
const SMALL = FONT.replace("12px", "11px");
function clipped(g, text, width) {  // as much of a text as fits
  if (g.measureText(text).width <= width) return text;
  let n = Math.floor(text.length * width / g.measureText(text).width);
  while (n > 1 && g.measureText(text.slice(0, n) + "…").width > width) n--;
  return n > 1 ? text.slice(0, n) + "…" : "";
}

const colours = lazily(() => {  // of functions: the ones that took most have one of their own
  const rank = new Map(D.functionRows.slice(0, PALETTE).map((row, i) => [row.name, i]));
  return D.functions.map(name => rank.has(name) ? rank.get(name) : PALETTE);
});
const colourOf = f => colours()[f] < PALETTE ? Ink.functions[colours()[f]] : Ink.other;

function ticks(from, to, width, apart = 92) {
  const least = (to - from) * apart / width;
  let step = 10 ** Math.floor(Math.log10(least));
  for (const times of [1, 2, 5, 10]) if (step * times >= least) { step *= times; break; }
  step = Math.max(1, step);
  const found = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) found.push(at);
  const digits = Math.max(0, Math.min(6, 6 - Math.floor(Math.log10(step) + 1e-9)));
  const label = at => to <= 2000 ? fixed(at, 0) + " µs" : to < 2e6 && step < 1e6
    ? (at / 1e3).toFixed(Math.max(0, digits - 3)) + " ms" : (at / 1e6).toFixed(digits) + " s";
  return found.map(at => [at, label(at)]);
}

const Lanes = {rows: [], height: 0, hits: null,
  make() {
    let y = 0;
    const add = row => { row.y = y; y += row.height; Lanes.rows.push(row); };
    for (const node of D.nodes) {
      if (!D.isOne) add({kind: "node", key: node.core, label: nodeName(node.core), height: NODE_ROW, node});
      const seats = [];
      for (let s = 0; s < S.n; s++) if (S.core[s] === node.core) seats.push(s);
      seats.sort((a, b) => (S.client[a] > 0) - (S.client[b] > 0) || Math.abs(S.client[a]) - Math.abs(S.client[b]));
      for (const s of seats) {
        if (S.client[s] > 0 && isIdle(s)) { node.idle = (node.idle || 0) + 1; continue; }
        add({kind: "worker", key: s, label: (S.client[s] > 0 ? "worker " : "driver ") + Math.abs(S.client[s]), height: ROW, node});
      }
    }
    Lanes.height = y + 4;
    Lanes.rowOfSeat = new Map(Lanes.rows.filter(row => row.kind === "worker").map(row => [row.key, row]));
    $("spacer").style.height = Lanes.height + "px";
  },
  intoSight(seat) {
    Lanes.toRow(Lanes.rowOfSeat.get(seat));
  },
  toRow(row) {
    const box = $("scroll");
    if (!row) return;
    if (row.y < box.scrollTop || row.y + row.height > box.scrollTop + box.clientHeight) box.scrollTop = row.y - box.clientHeight / 2;
  },
};
function isIdle(s) {  // a worker that ran nothing and that nothing befell has no row
  return !listOf(runsOfSeat(), s).length && !listOf(blocksOfSeat(), s).length && !S.reason[s];
}
let Wide = 0;
function measure() { Wide = $("lanes").clientWidth; }
const widthOf = () => Wide;
const plotWidth = () => Math.max(50, widthOf() - GUTTER - 10);
const xOf = us => GUTTER + (us - View.from) / (View.to - View.from) * plotWidth();
const timeAt = x => View.from + (x - GUTTER) / plotWidth() * (View.to - View.from);

/* ------------------------------------------------- drawing */
function drawAxis() {
  const g = fresh($("axis"), widthOf(), AXIS), right = GUTTER + plotWidth();
  g.font = SMALL;
  g.textBaseline = "middle";
  for (const [at, label] of ticks(View.from, View.to, plotWidth())) {
    const x = Math.round(xOf(at)) + 0.5;
    g.fillStyle = Ink.soft;
    g.textAlign = x - GUTTER < 24 ? "left" : x > right - 24 ? "right" : "center";
    g.fillText(label, x, 10);
    g.fillStyle = Ink.line;
    g.fillRect(x, 19, 1, 7);
  }
  g.fillStyle = Ink.line;
  g.fillRect(GUTTER, AXIS - 1, plotWidth(), 1);
}
function drawRows() {
  const box = $("scroll"), high = box.clientHeight, top = box.scrollTop;
  const g = fresh($("rows"), widthOf(), high), right = GUTTER + plotWidth();
  g.textBaseline = "middle";
  for (const [at] of ticks(View.from, View.to, plotWidth())) {
    g.fillStyle = Ink.faint;
    g.fillRect(Math.round(xOf(at)), 0, 1, high);
  }
  const shown = Lanes.rows.filter(row => row.y + row.height > top && row.y < top + high);
  for (const row of shown) row.kind === "node" ? drawNode(g, row, row.y - top) : drawSeat(g, row, row.y - top, right);
  if (View.path) drawPath(g, top, high);
  drawSelected(g, top);
  g.clearRect(right, 0, widthOf() - right, high);
}
function label(g, row, y, cls) {
  g.clearRect(0, y, GUTTER, row.height);
  g.font = cls === "node" ? FONT.replace("12px", "600 12px") : FONT;
  g.fillStyle = cls === "node" ? Ink.text : cls === "bad" ? Ink.bad : Ink.soft;
  g.textAlign = "left";
  g.fillText(clipped(g, row.label, GUTTER - 30), cls === "node" ? 14 : D.isOne ? 14 : 26, y + row.height / 2 + 0.5);
}
function drawNode(g, row, y) {
  g.fillStyle = Ink.faint;
  g.fillRect(0, y + 4, widthOf(), row.height - 5);
  g.font = FONT.replace("12px", "600 12px");
  g.fillStyle = row.node.died !== undefined ? Ink.bad : Ink.text;
  g.textAlign = "left";
  g.fillText(clipped(g, row.label, GUTTER - 30), 14, y + row.height / 2 + 1.5);
  if (row.node.died !== undefined) {
    g.font = SMALL;
    g.fillStyle = Ink.bad;
    const says = clipped(g, "✕ buried: " + row.node.reason, plotWidth() - 10), wide = g.measureText(says).width;
    const x = Math.max(GUTTER + 6, Math.min(xOf(row.node.died), GUTTER + plotWidth() - wide - 4));
    if (row.node.died <= View.to) g.fillText(says, x, y + row.height / 2 + 1.5);
  }
}
function drawSeat(g, row, y, right) {
  const s = row.key, top = y + 2, high = row.height - 4;
  const from = isNaN(S.began[s]) ? 0 : S.began[s], to = isNaN(S.lost[s]) ? (row.node.last ?? D.span) : S.lost[s];
  const a = Math.max(GUTTER, xOf(from)), b = Math.min(right, xOf(to));
  if (b > a) { g.fillStyle = Ink.band; g.fillRect(a, top + high / 2 - 1, b - a, 2); }
  g.save();
  g.beginPath();
  g.rect(GUTTER, y, right - GUTTER, row.height);
  g.clip();
  if (B.n) drawBlocks(g, s, top, high);
  const wide = drawRuns(g, s, top, high);
  drawWaits(g, s, top, high);
  for (const [run, left, room] of wide) drawName(g, run, left, room, top, high);
  if (row.node.died !== undefined && row.node.last !== null) {  // from here on nobody heard of it
    g.fillStyle = Ink.bad;
    g.fillRect(xOf(row.node.last), y, 1.5, row.height);
  }
  if (!isNaN(S.lost[s]) && S.reason[s]) cross(g, xOf(S.lost[s]), y + row.height / 2);
  g.restore();
  label(g, row, y, S.reason[s] ? "bad" : "");
}
function cross(g, x, y) {
  g.strokeStyle = Ink.bad;
  g.lineWidth = 2;
  g.beginPath();
  g.moveTo(x - 4, y - 4); g.lineTo(x + 4, y + 4); g.moveTo(x + 4, y - 4); g.lineTo(x - 4, y + 4);
  g.stroke();
}
/* The first of items, sorted by start, that can be seen: items of one seat do not overlap, almost. */
function firstSeen(items, start, at) {
  return Math.max(0, firstFrom(0, items.length, i => start(items[i]), at) - 2);
}
/* The first place from low up to high whose value is at least `least`; values do not fall. */
function firstFrom(low, high, value, least) {
  while (low < high) { const middle = low + high >> 1; if (value(middle) < least) low = middle + 1; else high = middle; }
  return low;
}
/* What a frame reads of a run, in the order of runsOfSeat: each of a hundred thousand is looked at. */
const runColumns = lazily(() => {
  const {items} = runsOfSeat();
  return {begin: Float64Array.from(items, begin), end: Float64Array.from(items, finish),
    fn: Int32Array.from(items, a => T.fn[A.task[a]]), bad: Uint8Array.from(items, a => isBad(A.state[a]))};
});
function drawRuns(g, s, top, high) {
  const {at, items} = runsOfSeat(), runs = runColumns(), {from, to} = View, scale = plotWidth() / (to - from), named = [];
  const columns = Strip.clear(), failed = [];
  let pixel = -1, busy = 0, most = 0, fn = 0, bad = false;
  const flush = () => {
    if (pixel < 0) return;
    if (pixel < columns.width) columns.set(pixel, colours()[fn], Math.min(1, 0.25 + 0.75 * busy));
    if (bad) failed.push(pixel);
    pixel = -1; busy = most = 0; bad = false;
  };
  for (let i = Math.max(at[s], firstFrom(at[s], at[s + 1], i => runs.begin[i], from) - 2); i < at[s + 1]; i++) {
    const start = runs.begin[i], end = runs.end[i];
    if (start > to) break;
    if (!(end >= from)) continue;
    const x = (start - from) * scale, wide = (end - start) * scale;
    if (wide >= NARROW) {
      flush();
      const room = drawRun(g, items[i], GUTTER + x, wide, top, high, runs.bad[i]);
      if (room > 34) named.push([items[i], Math.max(GUTTER + x, GUTTER - 2), room]);
      continue;
    }
    const first = Math.max(0, Math.floor(x)), until = x + wide;
    for (let here = first; here === first || here < until; here++) {
      if (here !== pixel) { flush(); pixel = here; }
      const share = Math.min(until, here + 1) - Math.max(x, here);
      busy += share;
      if (share >= most) { most = share; fn = runs.fn[i]; }
    }
    if (runs.bad[i]) bad = true;
  }
  flush();
  columns.draw(g, top, high);
  g.fillStyle = Ink.bad;
  for (const column of failed) g.fillRect(GUTTER + column - 1, top, 2, high);
  return named;
}
/* One row of columns, painted all at once: a thousand rectangles a row would cost a frame. */
const Strip = {width: 0, used: false,
  clear() {
    const width = Math.ceil(plotWidth());
    if (!this.canvas || this.width !== width) {
      this.canvas = document.createElement("canvas");
      this.canvas.width = this.width = width;
      this.canvas.height = 1;
      this.image = this.canvas.getContext("2d").createImageData(width, 1);
    } else if (this.used) this.image.data.fill(0);
    this.used = false;
    return this;
  },
  set(x, rank, alpha) {
    const [red, green, blue] = Ink.mixed[rank], data = this.image.data;
    data[4 * x] = red; data[4 * x + 1] = green; data[4 * x + 2] = blue; data[4 * x + 3] = 255 * alpha;
    this.used = true;
  },
  draw(g, top, high) {
    if (!this.used) return;
    this.canvas.getContext("2d").putImageData(this.image, 0, 0);
    g.imageSmoothingEnabled = false;
    g.drawImage(this.canvas, GUTTER, top, this.width, high);
  },
};
function drawRun(g, a, x, wide, top, high, isFailed) {
  const left = Math.max(x, GUTTER - 2), end = Math.min(x + wide, widthOf()), room = end - left;
  const state = D.states[A.state[a]], isGone = state === "lost", isOpen = state === "sent";
  const gap = room > 4 ? 1 : 0.4;
  g.fillStyle = colourOf(T.fn[A.task[a]]);
  g.globalAlpha = isGone || state === "cancelled" ? 0.35 : isOpen ? 0.6 : 1;
  g.fillRect(left, top, Math.max(0.6, room - gap), high);
  g.globalAlpha = 1;
  if (isFailed) {
    hatch(g, left, top, room - gap, high);
    g.strokeStyle = Ink.bad;
    g.lineWidth = 1.5;
    if (room > 3) g.strokeRect(left + 0.75, top + 0.75, room - gap - 1.5, high - 1.5);
  }
  return room;
}
/* The function's name: before the run's first get if there is room, else across it. */
function drawName(g, a, left, room, top, high) {
  const t = A.task[a], state = D.states[A.state[a]], isFailed = isBad(A.state[a]), isPale = isFailed || state === "cancelled";
  let free = room, isHollow = false;
  for (const w of listOf(waitsOfTask(), t)) {
    const x = xOf(W.started[w]), end = xOf(W.started[w] + W.took[w]);
    if (W.seat[w] !== A.seat[a] || end - x < 2 || end <= left || x > left + room) continue;
    if (x - left < 40) { free = Math.max(0, Math.min(end, left + room) - left); isHollow = true; } else free = x - left;
    break;
  }
  g.font = SMALL;
  g.textAlign = "left";
  const text = free > 30 ? clipped(g, (isFailed ? "✕ " : "") + D.functions[T.fn[t]] + (isHollow ? ", in get" : ""), free - 9) : "";
  if (!text) return;
  if (isFailed && !isHollow) { g.fillStyle = Ink.card; g.globalAlpha = 0.85; g.fillRect(left + 2.5, top + 2, g.measureText(text).width + 5, high - 4); g.globalAlpha = 1; }
  g.fillStyle = isPale || isHollow ? Ink.text : Ink.on;
  g.fillText(text, left + 5, top + high / 2 + 0.5);
}
function hatch(g, x, y, w, h) {
  g.save();
  g.beginPath();
  g.rect(x, y, w, h);
  g.clip();
  g.strokeStyle = Ink.bad;
  g.lineWidth = 1;
  g.beginPath();
  const end = Math.min(x + w, widthOf());
  for (let at = x - h; at < end; at += 5) { g.moveTo(at, y + h); g.lineTo(at + h, y); }
  g.stroke();
  g.restore();
}
/* Where a run, or a driver, stood still in get or wait: hollow. */
const waitsUntil = lazily(() => {  // in the order of waitsOfSeat: the latest end so far; those of threads overlap
  const {at, items} = waitsOfSeat(), until = new Float64Array(items.length);
  for (let s = 0; s < S.n; s++)
    for (let i = at[s]; i < at[s + 1]; i++) until[i] = Math.max(i > at[s] ? until[i - 1] : -Infinity, W.started[items[i]] + W.took[items[i]]);
  return until;
});
function drawWaits(g, s, top, high) {
  const {at, items} = waitsOfSeat(), until = waitsUntil(), scale = plotWidth() / (View.to - View.from), isDriver = S.client[s] < 0;
  let last = -10;
  for (let i = firstFrom(at[s], at[s + 1], i => until[i], View.from); i < at[s + 1]; i++) {
    const w = items[i], x = xOf(W.started[w]), wide = W.took[w] * scale;
    if (x > widthOf()) break;
    if (x + wide < GUTTER || x + wide < last + 1) continue;
    last = x + wide;
    if (isDriver) {
      g.fillStyle = Ink.band;
      g.fillRect(x, top + 3, Math.max(1, wide), high - 6);
      if (wide > 60) { g.font = SMALL; g.fillStyle = Ink.soft; g.textAlign = "left"; g.fillText(clipped(g, waitWords(w), wide - 10), Math.max(x, GUTTER) + 5, top + high / 2 + 0.5); }
    } else if (wide >= 2) {
      g.fillStyle = Ink.card;
      g.globalAlpha = 0.78;
      g.fillRect(x, top + 3, wide, high - 6);
      g.globalAlpha = 1;
    }
  }
}
const waitWords = w => "waits for " + (W.needed[w] && W.needed[w] < W.count[w] ? count(W.needed[w]) + " of " : "") + plural(W.count[w], "object");
/* Where the next run begins that is told for itself: what is under it cannot be read. */
function nextRunAt(s, us) {
  const items = listOf(runsOfSeat(), s);
  for (let i = firstSeen(items, begin, us); i < items.length; i++) if (finish(items[i]) > us) return xOf(begin(items[i]));
  return Infinity;
}
/* Runs that are told together: as strong as they were busy. */
function drawBlocks(g, s, top, high) {
  const items = listOf(blocksOfSeat(), s), scale = plotWidth() / (View.to - View.from);
  for (let i = firstSeen(items, b => B.started[b], View.from); i < items.length; i++) {
    const b = items[i], x = xOf(B.started[b]), wide = Math.max(1, B.took[b] * scale);
    if (x > widthOf()) break;
    if (x + wide < GUTTER) continue;
    g.fillStyle = B.fn[b] < 0 ? Ink.other : colourOf(B.fn[b]);
    g.globalAlpha = 0.2 + 0.5 * Math.min(1, B.busy[b] / Math.max(1, B.took[b]));
    g.fillRect(x, top + 2, wide, high - 4);
    g.globalAlpha = 1;
    if (B.failed[b]) { g.fillStyle = Ink.bad; g.fillRect(x, top, Math.min(2, wide), high); }
    const left = Math.max(x, GUTTER), next = Math.min(x + wide, i + 1 < items.length ? xOf(B.started[items[i + 1]]) : Infinity, nextRunAt(s, timeAt(left)));
    if (next - left > 70) { g.font = SMALL; g.fillStyle = Ink.text; g.textAlign = "left"; g.fillText(clipped(g, blockName(b), next - left - 10), left + 5, top + high / 2 + 0.5); }
  }
}

/* ------------------------------------------------- the critical path */
const pathRows = lazily(() => D.path.parts.map(([task, kind, from, to, after]) => {
  const run = lastRun(task);
  return {task, kind, from, to, after, seat: run >= 0 ? seatAt(task, from, to) : driverOf(parseInt(taskHex(task).slice(0, 8), 16))};
}));
function seatAt(task, from, to) {  // of the attempt that this part is of
  for (let a = T.attempt[task + 1] - 1; a >= T.attempt[task]; a--) if (A.seat[a] >= 0 && (A.sent[a] <= to || begin(a) <= to)) return A.seat[a];
  return -1;
}
const isWork = kind => kind === "run" || kind === "lost" || kind === "program";
function drawPath(g, top, high) {
  const right = GUTTER + plotWidth(), parts = pathRows(), low = row => row.y - top + row.height - 2;
  const endsFrom = (i, us) => firstFrom(i, parts.length, n => parts[n].to, us);
  let pixel = -1;
  g.save();
  g.beginPath();
  g.rect(GUTTER, 0, plotWidth(), high);
  g.clip();
  g.fillStyle = Ink.path;
  for (let i = endsFrom(0, View.from); i < parts.length && parts[i].from <= View.to; i++) {
    const part = parts[i], row = Lanes.rowOfSeat.get(part.seat), a = xOf(part.from), b = xOf(part.to);
    if (!row) continue;
    if (Math.floor(b) === pixel) {  // so are the next: on to the first that ends in another pixel
      i = endsFrom(i + 1, timeAt(pixel + 1)) - 1;
      continue;
    }
    pixel = Math.floor(b);
    const y = low(row), before = i ? Lanes.rowOfSeat.get(parts[i - 1].seat) : null;
    if (isWork(part.kind)) g.fillRect(a, y - 1, Math.max(1, b - a), 3);
    else dots(g, Math.max(a, GUTTER), Math.min(b, right), y);
    if (before && before !== row) g.fillRect(a - 0.75, Math.min(low(before), y) - 1, 1.5, Math.abs(low(before) - y) + 3);
  }
  g.restore();
}
function dots(g, from, to, y) { for (let x = from; x < to; x += 4) g.fillRect(x, y, Math.min(2, to - x), 1.5); }
function drawSelected(g, top) {
  const mark = (a, b, seat) => {
    const row = Lanes.rowOfSeat.get(seat);
    if (!row) return;
    const x = Math.max(GUTTER - 3, xOf(a)), end = Math.min(GUTTER + plotWidth() + 3, xOf(b));
    if (end < GUTTER || x > GUTTER + plotWidth()) return;
    g.strokeStyle = Ink.accent;
    g.lineWidth = 2;
    g.strokeRect(x - 1, row.y - top + 0.5, Math.max(3, end - x) + 2, row.height - 1);
  };
  if (View.kind === "task" && View.key < T.n) for (let a = T.attempt[View.key]; a < T.attempt[View.key + 1]; a++) mark(begin(a), finish(a), A.seat[a]);
  if (View.kind === "block") mark(B.started[View.key], B.started[View.key] + B.took[View.key], B.seat[View.key]);
  const row = View.kind === "worker" ? Lanes.rowOfSeat.get(View.key) : View.kind === "node" ? Lanes.rows.find(row => row.kind === "node" && row.key === View.key) : null;
  if (row) { g.strokeStyle = Ink.accent; g.lineWidth = 2; g.strokeRect(4, row.y - top + 1, GUTTER - 10, row.height - 2); }
}

/* ------------------------------------------------- the strip of the whole run */
const OVER = 46;
const profile = lazily(() => {  // how many runs at a time, mean of each of a thousand bins; and where some failed
  const bins = 1000, busy = new Float64Array(bins), bad = new Set();
  const add = (from, to, weight) => {
    const a = Math.max(0, from / D.span * bins), b = Math.min(bins, to / D.span * bins);
    for (let i = Math.floor(a); i < b && i < bins; i++) busy[i] += weight * (Math.min(b, i + 1) - Math.max(a, i));
  };
  for (let a = 0; a < A.n; a++) {
    if (A.seat[a] < 0 || isNaN(begin(a))) continue;
    add(begin(a), finish(a), 1);
    if (isBad(A.state[a])) bad.add(Math.min(bins - 1, Math.floor(finish(a) / D.span * bins)));
  }
  for (let w = 0; w < W.n; w++) if (S.client[W.seat[w]] > 0) add(W.started[w], W.started[w] + W.took[w], -1);
  for (let b = 0; b < B.n; b++) add(B.started[b], B.started[b] + B.took[b], B.busy[b] / Math.max(1, B.took[b]));
  return {busy, bad, most: Math.max(1, ...busy)};
});
const overX = us => GUTTER + us / D.span * plotWidth();
const Whole = {key: "", canvas: document.createElement("canvas")};  // the strip but for the window on it
function drawWhole() {
  const key = [widthOf(), ratio(), View.path, Ink.text].join();
  if (Whole.key === key) return;
  Whole.key = key;
  const g = fresh(Whole.canvas, widthOf(), OVER), {busy, bad, most} = profile(), wide = plotWidth(), low = OVER - 6;
  g.fillStyle = Ink.faint;
  g.fillRect(GUTTER, 2, wide, low - 2);
  g.fillStyle = Ink.rest;
  g.beginPath();
  g.moveTo(GUTTER, low);
  for (let i = 0; i < busy.length; i++) {
    const y = low - Math.max(0, busy[i]) / most * (low - 6);
    g.lineTo(GUTTER + i / busy.length * wide, y);
    g.lineTo(GUTTER + (i + 1) / busy.length * wide, y);
  }
  g.lineTo(GUTTER + wide, low);
  g.fill();
  g.fillStyle = Ink.bad;
  for (const i of bad) g.fillRect(GUTTER + i / busy.length * wide - 1, low - 7, 2, 7);
  if (View.path && D.path.parts.length) {
    g.fillStyle = Ink.path;
    let pixel = -1;
    for (const part of pathRows()) {
      const x = overX(part.from), end = overX(part.to);
      if (!isWork(part.kind) || (Math.floor(end) === pixel && end - x < 1)) continue;
      pixel = Math.floor(end);
      g.fillRect(x, low + 1, Math.max(1, end - x), 3);
    }
  }
  g.font = SMALL;
  g.fillStyle = Ink.soft;
  g.textAlign = "left";
  g.textBaseline = "middle";
  g.fillText("running, at most " + String(Number(most.toFixed(1))), 14, OVER / 2 - 2, GUTTER - 20);
}
function drawOverview() {
  drawWhole();
  const g = fresh($("overview"), widthOf(), OVER), wide = plotWidth();
  g.drawImage(Whole.canvas, 0, 0, widthOf(), OVER);
  if (!isWhole()) {
    const a = overX(View.from), b = Math.max(overX(View.to), a + 2);
    g.fillStyle = Ink.card;
    g.globalAlpha = 0.66;
    g.fillRect(GUTTER, 0, a - GUTTER, OVER);
    g.fillRect(b, 0, GUTTER + wide - b, OVER);
    g.globalAlpha = 1;
    g.strokeStyle = Ink.accent;
    g.lineWidth = 1.5;
    g.strokeRect(a, 1, b - a, OVER - 2);
  }
}
