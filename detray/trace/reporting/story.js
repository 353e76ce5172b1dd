/* Stories: what happened to one thing, in the words of `detray story`. */
const Say = {};

function lines(rows) {  // [time, parts...], sorted by time
  const list = el("ol", "story");
  const known = rows.filter(row => row).map((row, i) => [row, i]).sort((a, b) => (isNaN(a[0][0]) ? -Infinity : a[0][0]) - (isNaN(b[0][0]) ? -Infinity : b[0][0]) || a[1] - b[1]);
  for (const [[at, ...parts]] of known) {
    const when = isNaN(at) ? el("span", "when soft", "before") : button(moment(at), "when", () => setRange(at - (View.to - View.from) / 2, at + (View.to - View.from) / 2, true));
    list.append(el("li", "", when, el("span", "", ...parts.flat(3))));
  }
  return list;
}
function facts(rows) {
  return el("dl", "facts", ...rows.filter(Boolean).flatMap(([name, ...parts]) => [el("dt", "", name), el("dd", "", ...parts.flat(3))]));
}
function taskMove(t, m) {
  const text = D.texts[M.text[m]], node = nodeNamed(M.node[m]);
  return {infeasible: ["no node can ever run it", text ? ": the largest has " + text : ""], refused: ["the node that it is for cannot run it: ", text],
    returned: [node, " gives it back, not begun: ", text], "taken back": ["it is taken back from worker " + M.client[m] + onNode(M.core[m]) + ", which had not begun it"],
    "cancel asked": [M.client[m] ? (M.client[m] > 0 ? "worker " + M.client[m] : "driver " + -M.client[m]) + onNode(M.core[m]) : node, " wants it cancelled", text ? " (" + text + ")" : ""]}[M.kind[m]] || M.kind[m];
}
function objectMove(v) {
  const node = nodeNamed(V.node[v]), here = D.isOne ? "here" : V.core[v] >= 0 ? nodeLink(V.core[v]) : "a node";
  return {arrived: ["its bytes are ", D.isOne ? "here" : "on ", D.isOne ? "" : here, V.node[v] >= 0 ? ", from " + node : ""], spilled: ["it is moved from memory to disk", onNode(V.core[v])], "made again": ["it is made again", onNode(V.core[v])],
    corrupt: [el("span", "bad", "its bytes on disk are not what was written there"), onNode(V.core[v])], evicted: [node, " needed the room: its copy is gone"], missing: [node, " has no copy of it"], promoted: ["the copy", onNode(V.core[v]), " is the primary one now"]}[V.kind[v]] || V.kind[v];
}
const attemptWords = a => A.number[a] ? ", attempt " + A.number[a] : "";
function whereOf(a) { return A.seat[a] >= 0 ? seatLink(A.seat[a]) : A.node[a] >= 0 ? "node " + A.node[a] : "a worker"; }
function submitter(t) {
  const parent = T.parent[t];
  if (parent < 0) return null;
  if (isRoot(parent)) { const seat = driverOf(parseInt(taskHex(parent).slice(0, 8), 16)); return seat >= 0 ? seatLink(seat) : "the program"; }
  if (parent >= T.n) return null;
  for (let a = T.attempt[parent + 1] - 1; a >= T.attempt[parent]; a--) if (A.seat[a] >= 0 && !(begin(a) > T.submitted[t])) return seatLink(A.seat[a]);
  return null;
}
const self = t => [taskFunction(t), " (", taskShort(t), ")"];

Say.task = t => {
  const head = {kind: isRoot(t) ? "program" : "task", title: taskFunction(t), name: taskShort(t), hex: taskHex(t), ask: taskShort(t)};
  if (t >= T.n) return {...head, parts: [el("p", "", isRoot(t) ? "The program itself: what it submitted has it as parent." : D.leftOut ? "This task is not told one by one in this report: there are too many. The command below tells its story." : "A task from before the beginning of the trace."), ...children(t), ...puts(t)]};
  const rows = [], args = [...listOf(T.args, t)], refs = [...listOf(T.refs, t)], parent = T.parent[t], who = submitter(t);
  rows.push([T.submitted[t], who ? [who, " submits "] : "somebody submits ", ...self(t), parent >= 0 && !isRoot(parent) ? [" from ", taskLink(parent)] : "", args.length ? [", which takes ", ...some(args, objectLink)] : ""]);
  if (args.length && T.ready[t] > T.submitted[t]) rows.push([T.ready[t], "all of its arguments are made"]);
  for (let a = T.attempt[t]; a < T.attempt[t + 1]; a++) rows.push(...runLines(t, a));
  for (const w of listOf(waitsOfTask(), t)) {
    const objects = [...listOf(W.objects, w)].slice(0, 4), named = objects.length ? joined(objects.map(objectLink)) : plural(W.count[w], "object");
    const rest = W.count[w] > objects.length && objects.length ? " and " + count(W.count[w] - objects.length) + " more" : "";
    rows.push([W.started[w], ...self(t), " waits for ", W.needed[w] ? count(W.needed[w]) + " of " : "", named, rest]);
    if (W.open[w]) { if (W.started[w] + W.took[w] >= D.about.span) rows.push([D.span, "the trace ends before it was given them"]); }
    else rows.push([W.started[w] + W.took[w], W.late[w] ? "the wait timed out after " : "it is given them after ", duration(W.took[w])]);
  }
  const state = D.states[T.state[t]], a = lastRun(t);
  for (const m of listOf(movesOfTask(), t)) rows.push([M.at[m], taskMove(t, m)]);
  const results = [];
  for (let o = T.object[t]; o < T.object[t + 1]; o++) results.push(o);
  return {...head, state, parts: [
    spent(t),
    facts([["State", stateTag(state), T.error[t] ? [" ", el("span", "bad", D.texts[T.error[t]])] : ""],
      a >= 0 && ["Ran on", whereOf(a), T.attempt[t + 1] - T.attempt[t] > 1 ? ", after " + plural(T.attempt[t + 1] - T.attempt[t] - 1, "attempt") + " that came to nothing" : ""],
      args.length && ["Takes", ...some(args, argument, 8)], refs.length && ["Refers to", ...some(refs, argument, 8)],
      results.length && ["Returns", ...some(results, argument, 8)],
      onPath(t) && ["Critical path", duration(onPath(t)) + " of it are this task's"]]),
    lines(rows), ...tracebacks(t), ...users(results), ...children(t), ...puts(t)]};
};
function argument(o) { return el("span", "", objectLink(o), O.size[o] >= 0 ? el("span", "soft", " " + size(O.size[o])) : ""); }
const stateTag = state => el("span", "tag is-" + state, state === "sent" ? "unfinished" : state);
const pathTimes = lazily(() => { const times = new Map(); for (const part of pathRows()) times.set(part.task, (times.get(part.task) || 0) + part.to - part.from); return times; });
const onPath = t => pathTimes().get(t) || 0;
function runLines(t, a) {
  const state = D.states[A.state[a]], rows = [], took = exact(A.took[a]), again = attemptWords(a);
  if (!isNaN(A.delivered[a])) rows.push([A.delivered[a], T.core[t] >= 0 ? nodeLink(T.core[t]) : "its owner", " tells ", nodeNamed(A.node[a]), ": run ", ...self(t), again]);
  if (!isNaN(A.sent[a])) rows.push([A.sent[a], ...self(t), " is sent to ", whereOf(a), again]);
  if (!isNaN(A.started[a])) rows.push([A.started[a], "it begins", again, A.started[a] - A.sent[a] >= 1000 ? ", " + duration(A.started[a] - A.sent[a]) + " after it was sent" : ""]);
  if (state === "finished") {
    const sizes = [];
    for (let o = T.object[t]; o < T.object[t + 1]; o++) if (O.size[o] >= 0) sizes.push(size(O.size[o]));
    rows.push([A.ended[a], whereOf(a), " finished ", ...self(t), isNaN(A.took[a]) ? "" : " after " + took, ": ", sizes.slice(0, 6).join(", ") || (T.returns[t] ? "sizes not known" : "nothing"), again]);
  } else if (state === "failed" || state === "cancelled") {
    const kind = D.failures[A.failure[a]] ? " (" + D.failures[A.failure[a]] + ")" : "";
    rows.push([A.ended[a], ...self(t), " failed on ", whereOf(a), isNaN(A.took[a]) ? "" : " after " + took, kind, ": ", el("span", "bad", D.texts[A.error[a]]), again]);
  } else if (state === "lost") rows.push([A.ended[a], "its run on ", whereOf(a), " is lost: ", el("span", "bad", D.texts[A.error[a]])]);
  else rows.push([D.span, el("span", "soft", "the trace ends before it did")]);
  return rows;
}
/* Where the time went from submission to end, in the parts of `detray why`: a bar with its words. */
const PARTS = {argument: ["waiting for arguments", "f2"], place: ["waiting at the head for a place", "f6"], travel: ["on the way to another node", "f7"], fetch: ["waiting for bytes of arguments", "f8"],
  resource: ["waiting for a CPU", "f1"], start: ["waiting for a worker to start", "f5"], queue: ["in the worker's queue", "f9"], run: ["running", "f0"], get: ["standing in get", "f3"], resume: ["waiting to go on after a get", "f4"],
  room: ["waiting for room in the store", "f6"], report: ["ended, its owner had not heard", "line"], unknown: ["not known", "line"], lost: ["running, and lost", "bad"]};
function spent(t) {
  const parts = [];
  for (let i = P.kinds.at[t]; i < P.kinds.at[t + 1]; i++) { const [says, ink] = PARTS[D.partKinds[P.kinds.items[i]]] || ["", "line"]; parts.push([says, P.took[i], ink]); }
  if (!parts.length) return "";
  const item = T.awaited[t];
  return el("div", "", stack(parts), item >= 0 ? el("p", "soft", "It waited longest for ", objectLink(item), O.task[item] >= 0 ? [" of ", taskLink(O.task[item])] : "", ".") : "");
}
function stack(parts) {
  const bar = el("div", "stack"), words = el("div", "keys");
  for (const [says, us, ink] of parts) {
    const i = titled(el("i"), says + ": " + duration(us)), key = el("span", "key", says + " ", el("b", "", duration(us)));
    i.style.flexGrow = us;
    i.style.background = "var(--" + ink + ")";
    key.style.setProperty("--c", "var(--" + ink + ")");
    bar.append(i);
    words.append(key);
  }
  return el("div", "spent", bar, words);
}
function tracebacks(t) {
  const found = [];
  for (let a = T.attempt[t]; a < T.attempt[t + 1]; a++) if (trace(a)) found.push(el("h3", "", "Traceback" + attemptWords(a)), el("pre", "", trace(a)));
  return found;
}
function listed(title, items, make) {
  if (!items.length) return [];
  const list = el("ul", "plain"), more = growing(items, item => el("li", "", make(item)), 8, list);
  return [el("h3", "", title), list, more];
}
function users(results) {
  const found = results.flatMap(o => [...listOf(usersOf(), o)]);
  return listed("Its values go to", [...new Set(found)], taskLink);
}
function children(t) {
  const all = [...listOf(childrenOf(), t)], byName = new Map();
  for (const child of all) byName.set(T.fn[child], (byName.get(T.fn[child]) || 0) + 1);
  const words = [...byName].sort((a, b) => b[1] - a[1]).slice(0, 5).map(([f, n]) => D.functions[f] + " × " + count(n)).join(", ");
  return listed("It submitted " + plural(all.length, "task") + ": " + words, all, child => taskLine(child));
}
function taskLine(t) {
  const a = lastRun(t), state = D.states[T.state[t]];
  return [taskLink(t), el("span", state === "failed" ? "bad" : "soft", " " + (a >= 0 && state === "finished" ? duration(finish(a) - begin(a)) : state === "sent" ? "unfinished" : state))];
}
const puts = t => listed("It put", [...listOf(putsOf(), t)], argument);

Say.object = o => {
  const t = O.task[o], put = isPut(o), rows = [], args = [...listOf(usersOf(), o)], nested = [...listOf(nestersOf(), o)], holders = [...listOf(holdersOf(), o)], inside = [...listOf(O.refs, o)];
  const there = O.size[o] >= 0;
  if (there) rows.push([O.created[o], t >= 0 ? [taskLink(t), put ? " puts " : " returns "] : "", objectShort(o), ", " + size(O.size[o])]);
  for (const v of [...listOf(movesOfObject(), o)].slice(0, 60)) rows.push([V.at[v], objectMove(v)]);
  for (const user of args) { const a = lastRun(user); if (a >= 0) rows.push([begin(a), taskLink(user), " begins and takes it"]); }
  return {kind: put ? "object that was put" : "object", title: objectShort(o), name: there ? size(O.size[o]) : "no value", hex: objectHex(o), ask: objectShort(o), parts: [
    facts([["Made by", t >= 0 ? taskLink(t) : "not known"], ["Size", there ? size(O.size[o]) : t >= 0 && t < T.n && isBad(T.state[t]) ? "there is no value: its task failed" : "not known, or never made"], inside.length && ["Holds", ...some(inside, objectLink, 8)]]),
    lines(rows.slice(0, 40)), ...listed("An argument of " + plural(args.length, "task"), args, taskLine), ...listed("Referred to in the arguments of", nested, taskLine), ...listed("Held by", holders, objectLink)]};
};

Say.worker = s => {
  const isDriver = S.client[s] < 0, runs = [...listOf(runsOfSeat(), s)], blocks = [...listOf(blocksOfSeat(), s)], rows = [];
  rows.push([S.began[s], seatName(s), isDriver ? " (" + D.texts[S.entrypoint[s]] + ", pid " + S.pid[s] + ") connects" : " is ready (pid " + S.pid[s] + ")"]);
  if (!isNaN(S.lost[s])) rows.push([S.lost[s], seatName(s), S.reason[s] ? [" is gone: ", el("span", "bad", D.texts[S.reason[s]])] : " left as it was told"]);
  const waits = [...listOf(waitsOfSeat(), s)], stood = waits.reduce((sum, w) => sum + W.took[w], 0);
  if (isDriver) for (const w of waits.slice(0, 200)) rows.push([W.started[w], seatName(s), " ", waitWords(w), ", for " + duration(W.took[w])]);
  const root = isDriver && S.job[s] ? findTask(S.job[s] + ".root") : -1;
  return {kind: isDriver ? "driver" : "worker", title: seatName(s), name: isDriver ? D.texts[S.entrypoint[s]].split("/").pop() : "pid " + S.pid[s], ask: '"' + seatName(s) + '"', parts: [
    facts([!D.isOne && ["Node", nodeLink(S.core[s])], ["pid", String(S.pid[s] || "not known")], isDriver ? ["Job", S.job[s] ? count(S.job[s]) : "not known"] : ["Ran", plural(ranOn(s), "task") + ", busy for " + duration(busyOf(s)) + ", " + percent(busyOf(s), D.summary.makespan) + " of the makespan"], waits.length && ["Waits", plural(waits.length, "get") + ", " + duration(stood) + " together"]]),
    lines(rows), ...listed("Runs", runs, a => [el("span", "soft", moment(begin(a)) + "  "), taskLink(A.task[a]), el("span", isBad(A.state[a]) ? "bad" : "soft", " " + runWords(a))]),
    ...listed("Told together", blocks, b => link("block", b, blockName(b))), ...(root >= 0 ? children(root) : [])]};
};

Say.node = core => {
  const node = nodeOf(core), seats = [];
  for (let s = 0; s < S.n; s++) if (S.core[s] === core) seats.push(s);
  const lost = seats.filter(s => S.client[s] > 0 && S.reason[s]), rows = [];
  if (node.first !== null) rows.push([node.first, nodeName(core) + " (" + node.machine + ") takes its first step in the trace"]);
  if (node.died !== undefined) rows.push([node.died, nodeName(core), " is dead: ", el("span", "bad", node.reason)]);
  if (node.last !== null) rows.push([node.last, "its last step in the trace"]);
  for (const s of lost) rows.push([S.lost[s], seatLink(s), " is gone: ", el("span", "bad", D.texts[S.reason[s]])]);
  const used = D.usage.find(row => row.core === core), most = name => used && used.at.length ? used.values[name].reduce((a, b) => Math.max(a, b), 0) : NaN;
  return {kind: "node", title: D.isOne ? node.machine : nodeName(core), name: D.isOne ? "" : node.machine, parts: [
    facts([["CPUs", count(node.cpus)], ["Workers", plural(seats.filter(s => S.client[s] > 0).length, "worker") + (node.idle ? ", " + count(node.idle) + " of which ran nothing and have no row" : "")], ["Arena", size(node.arena_bytes), isNaN(most("arena_bytes")) ? "" : ", at most " + size(most("arena_bytes")) + " used"], most("spilled_bytes") > 0 && ["In files", "at most " + size(most("spilled_bytes"))]]),
    lines(rows), ...listed("Workers and drivers", seats, s => [seatLink(s), el("span", "soft", S.client[s] > 0 ? " " + plural(ranOn(s), "run") : "")])]};
};

Say.function = f => {
  const r = D.functionRows.find(row => row.name === D.functions[f]), tasks = [...listOf(tasksOfFunction(), f)];
  const length = t => { const a = lastRun(t); return a >= 0 && !isNaN(A.took[a]) ? A.took[a] - blockedIn(a) : -1; };
  const failed = tasks.filter(t => D.states[T.state[t]] === "failed"), slow = tasks.slice().sort((a, b) => length(b) - length(a));
  return {kind: "function", title: D.functions[f], name: r ? plural(r.count, "call") : "", parts: [
    r ? facts([["Calls", count(r.count), r.failed ? [", ", el("span", "bad", count(r.failed) + " failed")] : "", r.retries ? ", " + plural(r.retries, "attempt") + " repeated" : ""], ["Total", duration(r.total)], ["Mean", duration(r.mean) + ", median " + duration(r.median)], ["95 %", duration(r.p95) + ", longest " + duration(r.max)], ["Waited", duration(r.waiting / r.count) + " on average from submission to the beginning"], r.blocked && ["In get", duration(r.blocked) + " together"], r.bytes && ["Returned", size(r.bytes)]]) : "",
    histogram(tasks.map(length).filter(us => us >= 0)),
    ...listed("Failed", failed, taskLine), ...listed("The longest", slow, taskLine)]};
};
function histogram(values) {
  if (values.length < 8) return "";
  const low = Math.max(1, values.reduce((a, b) => Math.min(a, b))), high = Math.max(low * 1.01, values.reduce((a, b) => Math.max(a, b))), bins = 32, counts = new Array(bins).fill(0);
  const scale = Math.log(high / low);
  for (const us of values) counts[Math.min(bins - 1, Math.floor(Math.log(Math.max(low, us) / low) / scale * bins))]++;
  const most = Math.max(...counts);
  const bars = counts.map((n, i) => { const bar = titled(el("i"), plural(n, "call") + " of " + duration(low * Math.exp(scale * i / bins)) + " to " + duration(low * Math.exp(scale * (i + 1) / bins))); bar.style.height = (n ? Math.max(4, 100 * n / most) : 0) + "%"; return bar; });
  return el("div", "histogram", el("h3", "", "How long calls computed"), el("div", "bars", ...bars), el("div", "ends soft", el("span", "", duration(low)), el("span", "", duration(high))));
}

Say.group = g => {
  const box = D.graph.boxes[g], members = [...listOf(G, g)], tasks = members.filter(m => m >= 0), objects = members.filter(m => m < 0).map(m => -1 - m);
  return {kind: box.kind === "task" ? "group of tasks" : "group of objects", title: box.lines.join(" "), name: box.states, parts: [
    facts([["Stands for", plural(box.count, box.kind)], box.bytes > 0 && ["Sizes", size(box.bytes) + " together"], box.path && ["Critical path", "runs through it"], members.length < box.count && ["Told here", count(members.length) + " of them"]]),
    ...listed("Tasks", tasks, taskLine), ...listed("Objects", objects, argument)]};
};

Say.block = b => ({kind: "runs told together", title: blockName(b), name: seatName(B.seat[b]), ask: '"' + seatName(B.seat[b]) + '"', parts: [
  el("p", "", "There are too many tasks to tell each of them here. These ran one after another on the same worker" + (B.fn[b] < 0 ? "; they are of several functions." : ".")),
  facts([["Worker", seatLink(B.seat[b])], ["Runs", count(B.count[b]), B.failed[b] ? [", ", el("span", "bad", count(B.failed[b]) + " did not finish")] : ""], ["From", moment(B.started[b]) + ", for " + duration(B.took[b])], ["Busy", duration(B.busy[b])]])]});

/* ------------------------------------------------- the panel */
function showPanel(quietly) {
  const panel = $("panel"), isOpen = Boolean(View.kind);
  const was = document.body.classList.contains("with-panel");
  panel.hidden = !isOpen;
  document.body.classList.toggle("with-panel", isOpen);
  if (was !== isOpen) repaint();
  if (!isOpen) return;
  const {kind, title, name, hex, state, ask, parts} = Say[View.kind](View.key);
  $("panel-body").replaceChildren(
    el("p", "soft kind", kind), el("h2", "", title), el("p", "name", name ? el("span", "mono", name) : ""), ...parts.filter(Boolean),
    ...(spanOfView() ? [button("Show in the timeline", "wide", () => { const span = spanOfView(); showSpan(span[0], Math.max(span[1], span[0] + 1)); $("timeline").scrollIntoView({behavior: "smooth", block: "nearest"}); })] : []),
    ...(ask ? [el("p", "ask soft", ...["Step by step: ", el("code", "", "detray story " + D.trace + " " + ask), ...(View.kind === "task" ? [el("br"), "The causes: ", el("code", "", "detray why " + D.trace + " " + ask)] : [])])] : []),
    ...(hex ? [el("p", "ask soft", "Id: ", el("code", "", hex))] : []));
  $("panel-body").scrollTop = 0;
  $("panel-back").hidden = depth() < 2;
}
function spanOfView() { return View.kind === "worker" || !View.kind ? null : spanOf(View.kind, View.key); }
