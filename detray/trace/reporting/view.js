/* What is looked at: a span of time and a thing. Both are in the URL, so a URL points to them. */
const View = {from: 0, to: 1, kind: "", key: -1, path: true, node: -1};
const onRange = [], onSelect = [];
const SHORTEST = 1;  // microseconds
let moving = 0, urlTimer = 0;

function setRange(from, to, smooth) {
  const width = Math.min(Math.max(to - from, SHORTEST), D.span);
  from = Math.min(Math.max(0, from + (to - from - width) / 2), D.span - width);
  to = from + width;
  cancelAnimationFrame(moving);
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (!smooth || still || document.hidden) return showRange(from, to);
  const a = View.from, b = View.to, began = performance.now();
  const step = now => {
    const x = Math.min(1, (now - began) / 180), ease = 1 - (1 - x) ** 3;
    showRange(a + (from - a) * ease, b + (to - b) * ease);
    if (x < 1) moving = requestAnimationFrame(step);
  };
  moving = requestAnimationFrame(step);
}
function showRange(from, to) {
  View.from = from;
  View.to = to;
  clearTimeout(urlTimer);
  urlTimer = setTimeout(() => history.replaceState(history.state, "", hash()), 250);
  repaint();
}
const isWhole = () => View.from <= 0 && View.to >= D.span;
function zoom(factor, at = (View.from + View.to) / 2, smooth) {
  setRange(at - (at - View.from) * factor, at + (View.to - at) * factor, smooth);
}
/* Show a span with some room around it. */
function showSpan(from, to) {
  const room = Math.max((to - from) * 0.25, 20);
  setRange(from - room, to + room, true);
}

let painting = 0;
function repaint() {
  if (!painting) painting = requestAnimationFrame(paintAll);
}
function paintAll() {
  cancelAnimationFrame(painting);
  painting = 0;
  measure();
  for (const paint of onRange) paint();
}

/* ------------------------------------------------- the thing that is selected */
function select(kind, key, quietly) {
  const isSame = View.kind === kind && View.key === key;
  View.kind = kind;
  View.key = key;
  if (!quietly && !isSame) history.pushState({depth: depth() + 1}, "", hash());
  for (const show of onSelect) show(quietly);
  const span = quietly ? null : spanOf(kind, key);
  if (span && span[2] >= 0) Lanes.intoSight(span[2]);
  repaint();
}
const depth = () => history.state && history.state.depth || 0;
function hash() {
  const parts = [];
  if (View.kind) parts.push("at=" + encodeURIComponent(View.kind + ":" + nameOf(View.kind, View.key)));
  if (!isWhole()) parts.push("t=" + (View.from / 1e6).toFixed(6) + "-" + (View.to / 1e6).toFixed(6));
  return "#" + parts.join("&");
}
function followHash() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const span = /^([\d.]+)-([\d.]+)$/.exec(parts.get("t") || "");
  if (span) setRange(Number(span[1]) * 1e6, Number(span[2]) * 1e6);
  const [, kind, name] = /^(\w+):([^]*)$/.exec(parts.get("at") || "") || [];
  const key = kind ? findNamed(kind, name) : -1;
  select(key >= 0 ? kind : "", key, true);
  if (key >= 0 && !span) reveal(kind, key);
}

/* ------------------------------------------------- names in URLs */
function nameOf(kind, key) {
  if (kind === "task") return taskShort(key);
  if (kind === "object") return objectShort(key);
  if (kind === "worker") return S.core[key] + "." + S.client[key];
  if (kind === "function") return D.functions[key];
  if (kind === "node") return nodeOf(key).node >= 0 ? String(nodeOf(key).node) : "core" + key;
  return String(key);
}
function findNamed(kind, name) {
  if (kind === "task") return findTask(name);
  if (kind === "object") return findObject(name);
  if (kind === "function") return D.functions.indexOf(name);
  if (kind === "node") { const found = D.nodes.find(row => nameOf("node", row.core) === name); return found ? found.core : -1; }
  if (kind === "group") return name in D.graph.boxes ? Number(name) : -1;
  if (kind === "block") return Number(name) < B.n ? Number(name) : -1;
  if (kind === "worker") for (let s = 0; s < S.n; s++) if (S.core[s] + "." + S.client[s] === name) return s;
  return -1;
}
/* The prefixes that a short name or the beginning of a hexadecimal id may mean, and the count. */
function parsed(name) {
  const short = /^(\d{1,10})\.(root|[0-9a-f]{6}\.(\d{1,10}))$/.exec(name);
  if (short) {
    const start = hex8(Number(short[1])) + (short[3] ? short[2].slice(0, 6) : "0".repeat(16));
    return {start, count: Number(short[3] || 0)};
  }
  if (/^[0-9a-f]{8,40}$/.test(name)) return {start: name.slice(0, 24), count: -1, hex: name};
  return null;
}
function tasksNamed(name, limit) {
  const wanted = parsed(name), found = [];
  if (!wanted) return found;
  const fits = D.prefixes.map(p => p.startsWith(wanted.start));
  for (let t = 0; t < T.n + N.n && found.length < limit; t++) {
    const p = t < T.n ? T.prefix[t] : N.prefix[t - T.n];
    if (!fits[p]) continue;
    const c = t < T.n ? T.count[t] : N.count[t - T.n];
    if (wanted.count >= 0 ? c === wanted.count : wanted.hex.length <= 24 || hex8(c).startsWith(wanted.hex.slice(24, 32))) found.push(t);
  }
  return found;
}
function findTask(name) { const found = tasksNamed(name, 1); return found.length ? found[0] : -1; }
function findObject(name) {
  let [task, index] = name.split("/");
  if (index === undefined) {
    if (!/^[0-9a-f]{40}$/.test(name)) return -1;
    index = name.slice(32) >= "80000000" ? "put" : String(parseInt(name.slice(32), 16));
    task = name.slice(0, 32);
  }
  const found = index === "put" ? [] : tasksNamed(task, 8);
  for (const t of found) if (t < T.n && T.object[t] + Number(index) < T.object[t + 1]) return T.object[t] + Number(index);
  const wanted = parsed(task);
  if (!wanted) return -1;
  for (let o = O.returned; o < O.n; o++) {
    const i = o - O.returned;
    const fits = hexOfPrefix(X.prefix[i]).startsWith(wanted.start) && (wanted.count >= 0 ? X.count[i] === wanted.count : hex8(X.count[i]) === wanted.hex.slice(24, 32));
    if (fits && (index === "put" ? isPut(o) : X.kind[i] === Number(index))) return o;
  }
  return -1;
}
/* Move the timeline to a thing, and its row into sight, if it is not there. */
function reveal(kind, key) {
  const span = spanOf(kind, key);
  if (kind === "worker") Lanes.intoSight(key);
  if (kind === "node") Lanes.toRow(Lanes.rows.find(row => row.kind === "node" && row.key === key));
  if (span) {
    const [from, to, seat] = span;
    const isTiny = (to - from) / (View.to - View.from) < 0.004;
    if (to < View.from || from > View.to || isTiny) {
      const width = isTiny ? Math.max((to - from) * 12, 10) : View.to - View.from;
      setRange((from + to - width) / 2, (from + to + width) / 2, true);
    }
    if (seat >= 0) Lanes.intoSight(seat);
  }
}
function spanOf(kind, key) {
  if (kind === "task" && key < T.n) {
    const a = lastRun(key);
    if (a >= 0 && !isNaN(begin(a))) return [begin(a), finish(a), A.seat[a]];
    return isNaN(T.submitted[key]) ? null : [T.submitted[key], T.submitted[key], -1];
  }
  if (kind === "object" && !isNaN(O.created[key])) return O.task[key] >= 0 ? spanOf("task", O.task[key]) : [O.created[key], O.created[key], -1];
  if (kind === "block") return [B.started[key], B.started[key] + B.took[key], B.seat[key]];
  return null;
}
