/* Summary, what went wrong, the critical path in parts, tables that sort. */
function tile(title, big, small, under, act) {
  const box = el("div", "card tile", el("span", "soft", title), el("span", "big", big, small ? el("small", "", " " + small) : ""), el("span", "soft under", under || ""));
  if (act) { box.classList.add("alarm"); box.tabIndex = 0; box.setAttribute("role", "button"); box.addEventListener("click", act); box.addEventListener("keydown", event => { if (event.key === "Enter") act(); }); }
  return box;
}
function showSummary() {
  const s = D.summary, about = D.about, cpus = D.nodes.reduce((sum, row) => sum + row.cpus, 0);
  const failed = (s.states.failed || 0), open = (s.states.sent || 0) + (s.states.waiting || 0);
  const states = ["finished", "failed", "cancelled", "sent", "waiting"].filter(name => s.states[name]).map(name => count(s.states[name]) + " " + ({sent: "unfinished", waiting: "never begun"}[name] || name));
  $("summary").append(
    tile("Makespan", ...split(duration(s.makespan)), s.bound ? "no number of machines makes it less than " + duration(s.bound) : ""),
    tile("Work", ...split(duration(s.work)), fixed(s.meanWidth, s.meanWidth < 10 ? 1 : 0) + " tasks at a time on average, " + count(s.maxWidth) + " at most"),
    tile("Tasks", count(s.tasks), "", states.join(", ") || "none"),
    tile("CPU time used", ...split(cpus && s.makespan ? percent(s.work, cpus * s.makespan) : "—"), "of " + plural(cpus, "CPU") + " on " + plural(D.nodes.length, "node") + ", a run taken as one"),
    tile("Objects", count(s.objects), "", s.bytes ? size(s.bytes) + " together" : ""),
    tile("Critical path", ...split(duration(D.path.length)), pathWords()),
  );
  if (failed || s.retries || D.incidents.length || lostSeats().length) $("summary").append(
    tile("Went wrong", ...(failed ? [count(failed), failed === 1 ? "failed task" : "failed tasks"] : ["no", "task failed"]),
      [s.retries ? plural(s.retries, "attempt was repeated", "attempts were repeated") : "", lostSeats().length ? plural(lostSeats().length, "worker") + " lost" : "", dead().length ? plural(dead().length, "node") + " died" : ""].filter(Boolean).join(", "),
      () => $("failures").scrollIntoView({behavior: "smooth"})));
  const when = new Date(about.dateMs);
  $("who").textContent = [about.entrypoint, dateWords(when), D.isOne ? D.nodes.map(row => row.machine).join() : plural(D.nodes.length, "node"), "detray " + about.version, about.python ? "Python " + about.python : ""].filter(Boolean).join("  ·  ");
  const notes = [];
  if (D.leftOut) notes.push(["", plural(s.tasks, "task") + " are in this trace, and more than fit here: " + count(T.n) + " are told one by one (those on the critical path, those in trouble, the longest, those that launched others, and of the rest an even selection). The other " + count(D.leftOut) + " are in all sums and tables, and the timeline draws them together; `detray story " + D.trace + " ID` tells of each."]);
  if (!about.complete) notes.push(["", "The trace was " + about.note + ". The report shows what is there."]);
  if (about.firstStep) notes.push(["", "The trace begins in the middle, with step " + count(about.firstStep) + ": what was before is known as far as the state then says."]);
  for (const note of about.notes) notes.push(["", note]);
  if (about.processes > 1) notes.push(["quiet", "The nodes have clocks of their own; their times are compared by the date that each machine believed in."]);
  $("notes").append(...notes.map(([cls, text]) => el("p", "notice card " + cls, text)));
}
const dateWords = when => when.getUTCFullYear() < 2000 ? "by a clock without a date" : when.toISOString().slice(0, 19).replace("T", " ") + " UTC";
const split = text => { const at = text.indexOf(" "); return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)]; };
const lostSeats = lazily(() => { const found = []; for (let s = 0; s < S.n; s++) if (S.client[s] > 0 && S.reason[s]) found.push(s); return found; });
const dead = lazily(() => D.nodes.filter(row => row.died !== undefined));

/* ------------------------------------------------- what went wrong */
function showFailures() {
  const rows = [];
  const groups = new Map();  // tasks by what they failed with: one cause may fail thousands
  for (let t = 0; t < T.n; t++) {
    const state = D.states[T.state[t]];
    if (state !== "failed") continue;
    const key = T.fn[t] + " " + T.error[t];
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(t);
  }
  for (const tasks of groups.values()) rows.push({at: endOf(tasks[0]), make: () => failureRow(tasks)});
  for (const s of lostSeats()) rows.push({at: S.lost[s], make: () => lostRow(s)});
  for (const one of D.incidents) rows.push({at: one.at, make: () => incidentRow(one)});
  const again = new Map();  // by what came of the first attempt: one node's death repeats many
  for (let t = 0; t < T.n; t++) if (D.states[T.state[t]] !== "failed" && T.attempt[t + 1] - T.attempt[t] > 1) {
    const why = D.texts[A.error[T.attempt[t]]];
    again.has(why) ? again.get(why).push(t) : again.set(why, [t]);
  }
  for (const tasks of again.values()) rows.push({at: A.ended[T.attempt[tasks[0]]], make: () => retriedRow(tasks)});
  rows.sort((a, b) => (isNaN(a.at) ? Infinity : a.at) - (isNaN(b.at) ? Infinity : b.at));
  const failed = D.summary.states.failed || 0;
  $("failures-note").textContent = rows.length ? [failed ? plural(failed, "task") + " failed" : "no task failed", groups.size && groups.size < failed ? plural(groups.size, "cause") : ""].filter(Boolean).join(", ") : "";
  const list = el("ol", "rows");
  $("failure-list").append(rows.length ? list : el("p", "empty", "Nothing: every attempt of every task finished, no worker was lost, no node died."));
  if (rows.length) list.after(growing(rows, row => row.make(), 40, list));
}
const endOf = t => { const a = lastRun(t); return a >= 0 ? finish(a) : T.over[t]; };  // what failed with its argument has no end of its own: it stands last
function row(at, cls, head, text, more) {
  const when = isNaN(at) || at === null ? el("span", "when soft", "—") : button(moment(at), "when", () => { setRange(at - D.span / 40, at + D.span / 40, true); $("timeline").scrollIntoView({behavior: "smooth", block: "nearest"}); });
  return el("li", cls, when, el("div", "", el("div", "head", ...[head].flat()), text ? el("div", "text", text) : "", more || ""));
}
function failureRow(tasks) {
  const t = tasks[0], a = lastRun(t);
  const text = trace(a);
  const more = [];
  if (tasks.length > 1) more.push(el("div", "soft", "and " + count(tasks.length - 1) + " more: ", ...some(tasks.slice(1), taskLink, 3)));
  if (text) more.push(el("details", "", el("summary", "", "Traceback"), el("pre", "", text)));
  return row(endOf(t), "bad", [taskLink(t), " failed", a >= 0 && A.seat[a] >= 0 ? [" on ", seatLink(A.seat[a])] : ""].flat(), D.texts[T.error[t]], more.length ? el("div", "", ...more) : null);
}
const trace = a => a >= 0 && A.traceback[a] ? D.texts[A.traceback[a]] : "";
function lostRow(s) {
  const lost = [...listOf(runsOfSeat(), s)].filter(a => D.states[A.state[a]] === "lost");
  return row(S.lost[s], "bad", [seatLink(s), " is gone"], D.texts[S.reason[s]], lost.length ? el("div", "soft", "with its run of ", ...some(lost, a => taskLink(A.task[a]), 3)) : null);
}
function incidentRow(one) {
  const head = one.kind === "node died" ? [nodeByNumber(one.node) ? nodeLink(nodeByNumber(one.node).core) : "node " + one.node, " was buried"] : [one.kind, onNode(one.core)];
  return row(one.at, one.kind === "warning" ? "warn" : "bad", head, one.text);
}
const nodeByNumber = number => D.nodes.find(row => row.node === number && !D.isOne);
function retriedRow(tasks) {
  const t = tasks[0], first = T.attempt[t], last = lastRun(t), one = tasks.length === 1;
  const after = one ? (D.states[A.state[last]] === "finished" ? " Attempt " + A.number[last] + " finished." : "") : "";
  return row(A.ended[first], "warn", one ? [taskLink(t), " was run again"] : plural(tasks.length, "task") + " were run again",
    (one ? "Attempt " + A.number[first] : "An attempt of each") + " came to nothing" + (A.error[first] ? ": " + D.texts[A.error[first]] : "") + "." + after,
    one ? null : el("div", "soft", ...some(tasks, taskLink, 6)));
}

/* ------------------------------------------------- the critical path */
const KINDS = {run: "computing", program: "the program itself", lost: "computing what was lost", place: "ready, and no worker free", queue: "sent to a busy worker",
  start: "sent, not yet begun", get: "value made, not yet received by a get", arguments: "value made, not yet received as an argument", unknown: "not known"};
const KIND_INK = {run: "f0", program: "f4", lost: "bad", place: "f1", queue: "f6", start: "f5", get: "f3", arguments: "f2", unknown: "f9"};
function pathWords() {
  const [top] = Object.entries(D.path.kinds);
  return top ? percent(top[1], D.path.length) + " of it " + (KINDS[top[0]] || top[0]) : "nothing ran";
}
function showPath() {
  const {parts, length, kinds, names} = D.path, body = $("path-body");
  if (!parts.length) return body.append(el("p", "empty", "No attempt of a task is known to have ended, so there is no path."));
  $("path-note").textContent = "the chain of causes that ended with the task that ended last: " + duration(length);
  const bar = el("div", "stack");
  for (const [kind, us] of Object.entries(kinds)) {
    const part = titled(el("i"), (KINDS[kind] || kind) + ": " + duration(us));
    part.style.flexGrow = us;
    part.style.background = "var(--" + (KIND_INK[kind] || "f9") + ")";
    bar.append(part);
  }
  const what = el("table", "small"), who = el("table", "small");
  for (const [kind, us] of Object.entries(kinds)) {
    const dot = el("i", "swatch");
    dot.style.background = "var(--" + (KIND_INK[kind] || "f9") + ")";
    what.append(el("tr", "", el("td", "", dot, KINDS[kind] || kind), el("td", "number", duration(us)), el("td", "number soft", percent(us, length))));
  }
  for (const [name, us] of Object.entries(names).slice(0, 9)) {
    const f = D.functions.indexOf(name);
    who.append(el("tr", "", el("td", "", f >= 0 ? functionLink(f) : name.split("\n").pop().split(" ")[0]), el("td", "number", duration(us)), el("td", "number soft", percent(us, length))));
  }
  const list = el("ol", "steps");
  body.append(bar, el("div", "two", el("div", "", el("h3", "", "What it was"), what), el("div", "", el("h3", "", "Whose it was"), who)),
    el("h3", "", plural(merged().length, "step"), el("span", "soft", ", the last first: what a step came after stands below it")), list);
  list.after(growing(merged(), stepRow, 12, list));
}
const merged = lazily(() => {  // neighbouring parts of one task are one step; last first
  const steps = [];
  for (const part of pathRows()) {
    const last = steps[steps.length - 1];
    if (last && last.task === part.task) { last.to = part.to; last.kinds[part.kind] = (last.kinds[part.kind] || 0) + part.to - part.from; }
    else steps.push({...part, kinds: {[part.kind]: part.to - part.from}});
  }
  return steps.reverse();
});
const TIES = {get: "got the value of", arguments: "took the value of", submit: "was submitted by", worker: "had the worker or CPU after", retry: "repeats an attempt of"};
function stepRow(step, i, all) {
  const before = merged()[merged().indexOf(step) + 1];
  const parts = Object.entries(step.kinds).sort((a, b) => b[1] - a[1]).map(([kind, us]) => duration(us) + " " + (KINDS[kind] || kind));
  return row(step.from, "", [taskLink(step.task), " ", el("b", "", duration(step.to - step.from))], parts.join(", "),
    before && TIES[step.after] ? el("div", "soft", "It " + TIES[step.after] + " ", taskLink(before.task)) : null);
}

/* ------------------------------------------------- tables */
function table(columns, rows, sortBy, open) {
  const head = el("tr"), body = el("tbody"), made = el("table", "", el("thead", "", head), body);
  let by = sortBy, falling = true;
  const show = () => {
    const [, key] = columns[by], way = falling ? -1 : 1;
    rows.sort((a, b) => { const x = key(a), y = key(b); return way * (typeof x === "string" ? x.localeCompare(y, "en") : x - y) || a.order - b.order; });
    [...head.children].forEach((th, i) => i === by ? th.setAttribute("aria-sort", falling ? "descending" : "ascending") : th.removeAttribute("aria-sort"));
    body.replaceChildren();
    more && more.remove();
    more = growing(rows, line, 60, body);
    made.after(more);
  };
  const line = item => {
    const tr = el("tr", "", ...columns.map(([, key, cell, cls]) => el("td", cls === "text" ? "" : "number", ...[cell ? cell(item) : count(key(item))].flat())));
    if (open) tr.addEventListener("click", event => { if (!event.target.closest("a,button")) open(item); });
    return tr;
  };
  let more = null;
  columns.forEach(([name, key, , cls, title], i) => {
    const th = el("th", cls === "text" ? "" : "number", titled(button(name, "", () => { falling = i === by ? !falling : cls !== "text"; by = i; show(); }), title || name));
    th.scope = "col";
    head.append(th);
  });
  rows.forEach((item, order) => { item.order = order; });
  return {node: made, show};
}
const orDash = us => us ? duration(us) : el("span", "soft", "—");
function showFunctions() {
  if (!D.functionRows.length) return $("function-table").append(el("p", "empty", "No task was submitted in this trace."));
  const all = D.functionRows.reduce((sum, r) => sum + r.total, 0);
  const swatch = r => { const i = el("i", "swatch"); i.style.background = "var(--f" + Math.min(PALETTE, colours()[D.functions.indexOf(r.name)] ?? PALETTE) + ")"; return i; };
  const share = r => { const bar = el("span", "meter"), i = el("i"); i.style.width = (all ? 100 * r.total / all : 0) + "%"; bar.append(i); return [bar, percent(r.total, all)]; };
  const {node, show} = table([
    ["Function", r => r.name, r => [swatch(r), functionLink(D.functions.indexOf(r.name))], "text"],
    ["Calls", r => r.count],
    ["Total", r => r.total, r => duration(r.total), "", "Time of computing, all calls together"],
    ["Share", r => r.total, share],
    ["Mean", r => r.mean, r => duration(r.mean)],
    ["Median", r => r.median, r => duration(r.median)],
    ["95 %", r => r.p95, r => duration(r.p95), "", "95 of 100 calls took no longer"],
    ["Max", r => r.max, r => duration(r.max)],
    ["Mean wait", r => r.waiting / r.count, r => orDash(r.waiting / r.count), "", "From submission to the beginning, mean of all calls"],
    ["In get", r => r.blocked, r => orDash(r.blocked), "", "Stood still in get or wait, all calls together"],
    ["Returned", r => r.bytes, r => r.bytes ? size(r.bytes) : el("span", "soft", "—"), "", "Sizes of all returned values"],
    ["Repeated", r => r.retries, r => r.retries ? el("span", "warn", count(r.retries)) : el("span", "soft", "0"), "", "Attempts beyond the first"],
    ["Failed", r => r.failed, r => r.failed ? el("span", "bad", count(r.failed)) : el("span", "soft", "0")],
  ], D.functionRows.slice(), 2, r => select("function", D.functions.indexOf(r.name)));
  $("function-table").append(node);
  show();
}
function busyOf(s) {
  let sum = 0;
  for (const a of listOf(runsOfSeat(), s)) if (!isNaN(begin(a))) sum += finish(a) - begin(a);
  for (const w of listOf(waitsOfSeat(), s)) sum -= W.took[w];
  for (const b of listOf(blocksOfSeat(), s)) sum += B.busy[b];
  return Math.max(0, sum);
}
const ranOn = s => listOf(runsOfSeat(), s).length + [...listOf(blocksOfSeat(), s)].reduce((sum, b) => sum + B.count[b], 0);
function showNodes() {
  const seats = [];
  for (let s = 0; s < S.n; s++) if (S.client[s] > 0) seats.push({s, core: S.core[s], busy: busyOf(s), runs: ranOn(s)});
  if (D.nodes.length > 1) {
    const peak = core => { const u = D.usage.find(row => row.core === core); return u && u.at.length ? u.values.arena_bytes.reduce((a, b) => Math.max(a, b), 0) : NaN; };
    const rows = D.nodes.map(node => { const own = seats.filter(row => row.core === node.core); return {node, core: node.core, workers: own.length, runs: own.reduce((n, r) => n + r.runs, 0), busy: own.reduce((n, r) => n + r.busy, 0), peak: peak(node.core)}; });
    const {node, show} = table([
      ["Node", r => r.node.node, r => nodeLink(r.core), "text"], ["Machine", r => r.node.machine, r => r.node.machine, "text"], ["CPUs", r => r.node.cpus], ["Workers", r => r.workers],
      ["Runs", r => r.runs], ["Busy", r => r.busy, r => orDash(r.busy), "", "Runs on its workers, without the time they stood in get"],
      ["CPU time used", r => r.busy / r.node.cpus, r => percent(r.busy, r.node.cpus * D.summary.makespan)],
      ["Arena, at most", r => r.peak || 0, r => isNaN(r.peak) ? "—" : [size(r.peak), el("span", "soft", " of " + size(r.node.arena_bytes))]],
      ["End", r => r.node.died ?? Infinity, r => r.node.died === undefined ? el("span", "soft", "—") : el("span", "bad", "buried: " + r.node.reason), "text"],
    ], rows, 0, r => select("node", r.core));
    $("node-table").append(node);
    show();
    $("node-table").querySelector("th button").click();
  }
  if (!seats.length) return $("worker-table").append(el("p", "empty", "No worker was started in this trace."));
  const {node, show} = table([
    ["Worker", r => r.s, r => seatLink(r.s), "text"], ["pid", r => S.pid[r.s], r => String(S.pid[r.s] || "—")], ["Ready", r => S.began[r.s] || 0, r => moment(S.began[r.s])],
    ["Runs", r => r.runs], ["Busy", r => r.busy, r => orDash(r.busy)], ["Share of the makespan", r => r.busy, r => percent(r.busy, D.summary.makespan)],
    ["End", r => S.reason[r.s] ? 1 : 0, r => S.reason[r.s] ? el("span", "bad", cut(D.texts[S.reason[r.s]], 60)) : isNaN(S.lost[r.s]) ? el("span", "soft", "—") : el("span", "soft", "left at " + moment(S.lost[r.s])), "text"],
  ], seats, 4, r => select("worker", r.s));
  $("worker-table").append(node);
  show();
}
function showAbout() {
  const a = D.about, trace = D.trace;
  const rows = [["Trace", trace + ", " + plural(a.steps, "step") + (a.reason ? " (" + a.reason + ")" : "")], ["Program", a.entrypoint || "—"], ["Recorded", dateWords(new Date(a.dateMs)) + ", for " + duration(a.span)],
    ["By", "detray " + a.version + ", core revision " + a.revision + (a.python ? ", Python " + a.python : "")], ...(a.cluster ? [["Cluster", a.cluster]] : [])];
  const list = el("dl", "facts", ...rows.flatMap(([name, text]) => [el("dt", "", name), el("dd", "", text)]));
  const commands = [["detray story " + trace + " ID", "the life of one thing, step by step"], ["detray why " + trace + " ID", "what it waited for, and why that took so long"], ["detray debug " + trace, "any moment of the run: forwards, backwards"],
    ["detray diff OTHER " + trace, "what went otherwise than in another run"], ["detray rerun " + trace + " ID --trust", "a task once more, if its payloads were recorded"], ["detray shrink " + trace + " --expect ...", "a small test of what went wrong"],
    ["detray graph " + trace, "the graph as SVG, DOT, GraphML, JSON"], ["detray timeline " + trace, "the timeline for https://ui.perfetto.dev"]];
  $("about-body").append(list, el("table", "commands", ...commands.map(([command, says]) => el("tr", "", el("td", "", el("code", "", command)), el("td", "soft", says)))),
    el("p", "soft", "Times count from the first step of the trace. The page holds all it shows: it loads nothing and sends nothing."));
}
