/* The packed data (columns.py says how) as typed arrays: D. Times are microseconds since the first step. */
const $ = id => document.getElementById(id);
const D = {};

async function unpack() {
  if (typeof DecompressionStream === "undefined")
    throw new Error("This browser cannot unpack the report's data (it has no DecompressionStream). Open the file with Firefox 113, Chrome 80, Safari 16.4 or later.");
  const text = atob($("packed").textContent.trim());
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  $("packed").remove();
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const size = new DataView(bytes.buffer).getUint32(0, true);
  Object.assign(D, JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + size))));
  const columns = new Map();
  let at = 4 + size;
  for (const [name, count, planes, delta] of D.columns) {
    columns.set(name, column(bytes, at, count, planes, delta));
    at += count * planes;
  }
  read(columns);
}
function column(bytes, at, count, planes, delta) {
  const values = new Float64Array(count);
  let scale = 1;
  for (let plane = 0; plane < planes; plane++, scale *= 256, at += count)
    for (let i = 0; i < count; i++) values[i] += bytes[at + i] * scale;
  let before = 0;
  for (let i = 0; i < count; i++) {
    const v = values[i], n = v % 2 ? -(v + 1) / 2 : v / 2;
    values[i] = delta ? (before += n) : n;
  }
  return values;
}

/* ------------------------------------------------- columns by what they are */
const known = values => values.map(v => v === 0 ? NaN : v > 0 ? v - 1 : v);  // numbers.code
const whole = values => Int32Array.from(values);
const place = values => Int32Array.from(values, v => v - 1);  // 0 was for none
function offsets(counts) {
  const at = new Int32Array(counts.length + 1);
  for (let i = 0; i < counts.length; i++) at[i + 1] = at[i] + counts[i];
  return at;
}
function lists(columns, name) { return {at: offsets(columns.get(name + "#")), items: whole(columns.get(name))}; }
const listOf = (lists, i) => lists.items.subarray(lists.at[i], lists.at[i + 1]);

let T, A, W, S, O, X, N, B, G, P, M, V;
function read(c) {
  const get = name => c.get(name) || new Float64Array(0);
  T = {n: get("t.prefix").length, prefix: whole(get("t.prefix")), count: get("t.count"), fn: whole(get("t.function")),
    parent: place(get("t.parent")), core: place(get("t.core")), submitted: known(get("t.submitted")), over: known(get("t.over")), state: whole(get("t.state")),
    error: whole(get("t.error")), flags: whole(get("t.flags")), returns: whole(get("t.returns")), object: offsets(get("t.places")),
    ready: get("t.ready"), args: lists(c, "t.args"), refs: lists(c, "t.refs"), attempt: offsets(get("t.attempts"))};
  A = {n: get("a.seat").length, seat: place(get("a.seat")), node: place(get("a.node")), sent: known(get("a.sent")),
    started: known(get("a.started")), took: known(get("a.took")), ended: known(get("a.ended")), delivered: known(get("a.delivered")), state: whole(get("a.state")),
    error: whole(get("a.error")), traceback: whole(get("a.traceback")), number: whole(get("a.number")), failure: whole(get("a.failure"))};
  for (let t = 0; t < T.n; t++) T.ready[t] += T.submitted[t];  // it was told as the time since
  A.task = new Int32Array(A.n);
  for (let t = 0; t < T.n; t++) for (let a = T.attempt[t]; a < T.attempt[t + 1]; a++) { A.task[a] = t; A.number[a] += a - T.attempt[t]; }
  for (let a = 0; a < A.n; a++) if (!isNaN(A.started[a] + A.took[a])) A.ended[a] = A.started[a] + A.took[a];
  W = {n: get("w.seat").length, seat: whole(get("w.seat")), task: place(get("w.task")), started: known(get("w.started")), took: get("w.took"),
    needed: whole(get("w.needed")), count: whole(get("w.count")), late: whole(get("w.timed_out")), open: whole(get("w.open")), objects: lists(c, "w.objects")};
  S = {n: get("s.core").length, core: whole(get("s.core")), client: whole(get("s.client")), pid: get("s.pid"), began: known(get("s.began")),
    lost: known(get("s.lost")), reason: whole(get("s.reason")), job: whole(get("s.job")), entrypoint: whole(get("s.entrypoint"))};
  X = {prefix: whole(get("x.prefix")), count: get("x.count"), kind: get("x.kind"), producer: place(get("x.producer"))};
  O = {n: get("o.size").length, size: get("o.size").map(v => v - 1), created: known(get("o.created")), refs: lists(c, "o.refs")};
  O.returned = T.object[T.n];
  O.task = new Int32Array(O.n).fill(-1);
  for (let t = 0; t < T.n; t++) for (let o = T.object[t]; o < T.object[t + 1]; o++) {
    O.task[o] = t;
    const end = A.ended[T.attempt[t + 1] - 1];
    if (T.attempt[t + 1] > T.attempt[t] && !isNaN(A.started[T.attempt[t + 1] - 1]) && !isNaN(end)) O.created[o] += end;
  }
  for (let i = 0; i < X.prefix.length; i++) O.task[O.returned + i] = X.producer[i];
  N = {n: get("n.prefix").length, prefix: whole(get("n.prefix")), count: get("n.count"), fn: known(get("n.function"))};
  B = {n: get("b.seat").length, seat: whole(get("b.seat")), fn: place(get("b.function")), started: known(get("b.started")), took: get("b.took"),
    busy: get("b.busy"), count: whole(get("b.count")), failed: whole(get("b.failed"))};
  G = lists(c, "g.members");
  P = {kinds: lists(c, "p.kind"), took: get("p.took")};
  T.awaited = place(get("t.awaited"));
  const moves = (name, kinds) => ({n: get(name + ".thing").length, thing: whole(get(name + ".thing")), kind: [...get(name + ".kind")].map(k => kinds[k]), at: known(get(name + ".at")),
    core: place(get(name + ".core")), node: place(get(name + ".node")), client: whole(get(name + ".client")), text: whole(get(name + ".text"))});
  M = moves("m", D.taskMoves);
  V = moves("v", D.objectMoves);
  for (const row of D.usage) {
    row.at = get("u" + row.core + ".at");
    row.values = {};
    for (const name of ["arena_bytes", "spilled_bytes", "inline_bytes", "unfinished", "ready", "running", "blocked", "workers"])
      row.values[name] = get("u" + row.core + "." + name);
  }
  const part = {task: whole(get("c.task")), kind: get("c.kind"), after: get("c.after"), from: get("c.from"), took: get("c.took")};
  D.path.parts = Array.from(part.task, (task, i) => [task, D.path.partKinds[part.kind[i]], part.from[i], part.from[i] + part.took[i], D.path.ties[part.after[i]]]);
  for (let w = 0; w < W.n; w++) if (W.open[w] && W.task[w] >= 0 && W.task[w] < T.n)  // what never answered is over with the run
    for (let a = T.attempt[W.task[w]]; a < T.attempt[W.task[w] + 1]; a++) if (A.seat[a] === W.seat[w] && A.ended[a] >= W.started[w]) W.took[w] = Math.min(W.took[w], A.ended[a] - W.started[w]);
  D.nodeOfCore = new Map(D.nodes.map(row => [row.core, row]));
  D.isOne = D.nodes.length < 2;
  D.span = Math.max(1, D.about.span, ...D.usage.map(row => row.until || 0));
}

/* ------------------------------------------------- what leads where, found when first asked for */
function lazily(make) { let made; return () => made === undefined ? (made = make()) : made; }
function inverse(count, pairs) {  // pairs(each): calls each(key, value) for all
  const sizes = new Int32Array(count);
  pairs(key => { sizes[key]++; });
  const at = offsets(sizes), items = new Int32Array(at[count]), next = at.slice();
  pairs((key, value) => { items[next[key]++] = value; });
  return {at, items};
}
const childrenOf = lazily(() => inverse(T.n + N.n, each => { for (let t = 0; t < T.n; t++) if (T.parent[t] >= 0) each(T.parent[t], t); }));
const usersOf = lazily(() => inverse(O.n, each => { for (let t = 0; t < T.n; t++) for (const o of listOf(T.args, t)) each(o, t); }));
const nestersOf = lazily(() => inverse(O.n, each => { for (let t = 0; t < T.n; t++) for (const o of listOf(T.refs, t)) each(o, t); }));
const holdersOf = lazily(() => inverse(O.n, each => { for (let o = 0; o < O.n; o++) for (const inner of listOf(O.refs, o)) each(inner, o); }));
const putsOf = lazily(() => inverse(T.n + N.n, each => { for (let o = O.returned; o < O.n; o++) if (isPut(o) && O.task[o] >= 0) each(O.task[o], o); }));
const waitsOfTask = lazily(() => inverse(T.n + N.n, each => { for (let w = 0; w < W.n; w++) if (W.task[w] >= 0) each(W.task[w], w); }));
const movesOfTask = lazily(() => inverse(T.n + N.n, each => { for (let m = 0; m < M.n; m++) each(M.thing[m], m); }));
const movesOfObject = lazily(() => inverse(O.n, each => { for (let v = 0; v < V.n; v++) each(V.thing[v], v); }));
const runsOfSeat = lazily(() => byStart(inverse(S.n, each => { for (let a = 0; a < A.n; a++) if (A.seat[a] >= 0) each(A.seat[a], a); }), begin));
const waitsOfSeat = lazily(() => byStart(inverse(S.n, each => { for (let w = 0; w < W.n; w++) each(W.seat[w], w); }), w => W.started[w]));
const blocksOfSeat = lazily(() => byStart(inverse(S.n, each => { for (let b = 0; b < B.n; b++) each(B.seat[b], b); }), b => B.started[b]));
function byStart(lists, start) {
  for (let i = 0; i + 1 < lists.at.length; i++) lists.items.subarray(lists.at[i], lists.at[i + 1]).sort((a, b) => start(a) - start(b) || a - b);
  return lists;
}
const tasksOfFunction = lazily(() => inverse(D.functions.length, each => { for (let t = 0; t < T.n; t++) each(T.fn[t], t); }));

/* When a run began: when it started, or was sent if nobody knows. When it ended: the end of the trace if it did not. */
const begin = a => isNaN(A.started[a]) ? A.sent[a] : A.started[a];
const finish = a => isNaN(A.ended[a]) ? D.span : A.ended[a];
const isBad = state => D.states[state] === "failed" || D.states[state] === "lost";
const lastRun = t => t < T.n && T.attempt[t + 1] > T.attempt[t] ? T.attempt[t + 1] - 1 : -1;

/* ------------------------------------------------- ids */
const hexOfPrefix = p => D.prefixes[p] || "";
const hex8 = n => n.toString(16).padStart(8, "0");
function taskHex(t) {
  return t < T.n ? hexOfPrefix(T.prefix[t]) + hex8(T.count[t]) : hexOfPrefix(N.prefix[t - T.n]) + hex8(N.count[t - T.n]);
}
function shortOf(hex) {
  const job = parseInt(hex.slice(0, 8), 16);
  if (/^0+$/.test(hex.slice(8, 32))) return job + ".root";
  return job + "." + hex.slice(8, 14) + "." + parseInt(hex.slice(24, 32), 16);
}
const taskShort = t => shortOf(taskHex(t));
function isPut(o) { return o >= O.returned && X.kind[o - O.returned] >= 2147483648; }
function objectHex(o) {
  if (o < O.returned) return taskHex(O.task[o]) + hex8(o - T.object[O.task[o]]);
  const i = o - O.returned;
  return hexOfPrefix(X.prefix[i]) + hex8(X.count[i]) + hex8(X.kind[i]);
}
function objectShort(o) {
  const hex = objectHex(o);
  return shortOf(hex.slice(0, 32)) + "/" + (isPut(o) ? "put" : parseInt(hex.slice(32), 16));
}
function taskFunction(t) {
  if (t < T.n) return D.functions[T.fn[t]];
  const fn = N.fn[t - T.n];
  if (!isNaN(fn)) return D.functions[fn];
  return isRoot(t) ? programName(parseInt(taskHex(t).slice(0, 8), 16)) : "(before the trace)";
}
const isRoot = t => t >= T.n && /^0+$/.test(taskHex(t).slice(8));
function driverOf(job) { for (let s = 0; s < S.n; s++) if (S.client[s] < 0 && S.job[s] === job) return s; return -1; }
function programName(job) {
  const seat = driverOf(job), path = seat >= 0 ? D.texts[S.entrypoint[seat]] : D.about.entrypoint;
  return path.split(" ")[0].split("/").pop() || "program";
}
const nodeOf = core => D.nodeOfCore.get(core);
const onNode = core => D.isOne || !nodeOf(core) ? "" : " on " + nodeName(core);
const blockName = b => B.fn[b] < 0 ? count(B.count[b]) + " runs" : count(B.count[b]) + " × " + D.functions[B.fn[b]];
const nodeNamed = number => { const row = D.nodes.find(row => row.node === number); return row ? nodeName(row.core) : "node " + number; };
const nodeName = core => nodeOf(core) ? nodeOf(core).name || "this node" : "a node";
function seatName(s) { return (S.client[s] > 0 ? "worker " + S.client[s] : "driver " + -S.client[s]) + onNode(S.core[s]); }
