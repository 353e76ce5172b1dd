/* Finding things, and putting it all together. */
const FOUND_MAX = 14;
function find(text) {
  const q = text.trim().toLowerCase(), found = [];
  const add = (kind, key, says, more) => { if (found.length < FOUND_MAX) found.push({kind, key, says, more}); };
  if (!q) return found;
  for (const t of tasksNamed(q.split("/")[0], 6)) if (!q.includes("/")) add("task", t, taskFunction(t) + " " + taskShort(t), t < T.n ? D.states[T.state[t]] : "");
  const o = q.includes("/") || q.length === 40 ? findObject(q) : -1;
  if (o >= 0) add("object", o, objectShort(o), O.size[o] >= 0 ? size(O.size[o]) : "no value");
  D.functions.forEach((name, f) => { if (name.toLowerCase().includes(q)) add("function", f, name, plural((D.functionRows.find(row => row.name === name) || {count: 0}).count, "call")); });
  for (const node of D.nodes) if (((D.isOne ? "" : nodeName(node.core) + " ") + node.machine).toLowerCase().includes(q)) add("node", node.core, D.isOne ? node.machine : nodeName(node.core), node.machine);
  for (let s = 0; s < S.n && found.length < FOUND_MAX; s++) if (matchesSeat(s, q)) add("worker", s, seatName(s), "pid " + S.pid[s]);
  const texts = new Set();
  D.texts.forEach((t, i) => { if (i && t.toLowerCase().includes(q)) texts.add(i); });
  if (texts.size) {
    for (let t = 0; t < T.n && found.length < FOUND_MAX; t++) if (texts.has(T.error[t])) add("task", t, taskFunction(t) + " " + taskShort(t), cut(D.texts[T.error[t]], 80));
    for (let a = 0; a < A.n && found.length < FOUND_MAX; a++) if (texts.has(A.error[a]) && !texts.has(T.error[A.task[a]])) add("task", A.task[a], taskFunction(A.task[a]) + " " + taskShort(A.task[a]), cut(D.texts[A.error[a]], 80));
    for (let s = 0; s < S.n; s++) if (S.reason[s] && texts.has(S.reason[s])) add("worker", s, seatName(s), cut(D.texts[S.reason[s]], 80));
  }
  D.functions.forEach((name, f) => { if (name.toLowerCase() === q) for (const t of listOf(tasksOfFunction(), f).subarray(0, 8)) add("task", t, name + " " + taskShort(t), D.states[T.state[t]]); });
  return found;
}
function matchesSeat(s, q) {
  if (seatName(s).startsWith(q) && /\d/.test(q)) return q.length >= seatName(s).length || seatName(s)[q.length] === " " || /\d$/.test(q) && !/\d/.test(seatName(s)[q.length]);
  return /^\d{2,}$/.test(q) && String(S.pid[s]) === q;
}
function listenFinder() {
  const box = $("query"), list = $("found");
  let at = -1, shown = [];
  const mark = to => {
    at = to;
    [...list.children].forEach((li, i) => { li.setAttribute("aria-selected", i === at); if (i === at) li.scrollIntoView({block: "nearest"}); });
    at >= 0 ? box.setAttribute("aria-activedescendant", "found-" + at) : box.removeAttribute("aria-activedescendant");
  };
  const open = () => {
    shown = find(box.value);
    list.hidden = !box.value.trim();
    box.setAttribute("aria-expanded", String(!list.hidden));
    list.replaceChildren(...(shown.length ? shown.map((item, i) => {
      const li = el("li", "", el("span", "what soft", item.kind), el("b", "", item.says), el("span", "soft", item.more || ""));
      li.id = "found-" + i;
      li.setAttribute("role", "option");
      li.addEventListener("pointerdown", event => { event.preventDefault(); choose(i); });
      return li;
    }) : [el("li", "none soft", "Nothing is called so, and no error says it.")]));
    mark(shown.length ? 0 : -1);
  };
  const close = () => { list.hidden = true; box.setAttribute("aria-expanded", "false"); };
  const choose = i => {
    if (!shown[i]) return;
    close();
    box.blur();
    select(shown[i].kind, shown[i].key);
    reveal(shown[i].kind, shown[i].key);
  };
  box.addEventListener("input", open);
  box.addEventListener("focus", () => { if (box.value) open(); });
  box.addEventListener("blur", close);
  box.addEventListener("keydown", event => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") { event.preventDefault(); if (shown.length) mark((at + (event.key === "ArrowDown" ? 1 : shown.length - 1)) % shown.length); }
    if (event.key === "Enter") { event.preventDefault(); choose(at); }
  });
}
function showLegend() {
  const rows = D.functionRows.slice(0, PALETTE), rest = D.functionRows.length - rows.length;
  const keys = rows.map((r, i) => { const key = link("function", D.functions.indexOf(r.name), cut(r.name, 40)); key.className = "key"; key.style.setProperty("--c", "var(--f" + i + ")"); return key; });
  if (rest > 0) { const key = el("span", "key", plural(rest, "other function")); key.style.setProperty("--c", "var(--f9)"); keys.push(key); }
  const failed = el("span", "key failed", "failed or lost"), get = el("span", "key hollow", "in get"), path = el("span", "key path", "critical path");
  $("legend").append(...keys, el("span", "grow"), get, failed, path);
}
const ROWS_PRINTED = 6000;  // pixels: a canvas has a limit
function fitTimeline(all) {
  measure();
  GUTTER = innerWidth < 900 ? 108 : D.isOne ? 122 : 150;
  const most = all ? ROWS_PRINTED : Math.max(220, Math.min(Math.round(innerHeight * 0.5), 600));
  $("scroll").style.height = Math.min(Lanes.height, most) + "px";
  repaint();
}
function showNavigation() {
  const parts = [["timeline", "Timeline"], ["failures", "What went wrong"], ["path", "Critical path"], ["functions", "Functions"], ["graph", "Graph"], ["nodes", "Nodes"]];
  $("nav").append(...parts.map(([id, text]) => button(text, "", () => $(id).scrollIntoView({behavior: "smooth"}))));
}
async function start() {
  await unpack();
  for (const one of D.incidents) if (one.kind === "node died") { const node = nodeByNumber(one.node); if (node && node.died === undefined) { node.died = one.at; node.reason = one.text; } }
  $("body").hidden = false;
  $("trouble").hidden = true;
  readInk();
  Lanes.make();
  View.to = D.span;
  showNavigation();
  showSummary();
  showLegend();
  showFailures();
  showPath();
  showFunctions();
  showNodes();
  showAbout();
  makePicture();
  makeCharts();
  inkCharts();
  onSelect.push(showPanel);
  onRange.push(drawAxis, drawRows, drawOverview, drawCharts, () => {
    $("range").textContent = isWhole() ? duration(D.span) : moment(View.from) + " to " + moment(View.to) + " (" + duration(View.to - View.from) + ")";
  });
  listenLanes();
  listenKeys();
  listenFinder();
  $("show-path").addEventListener("change", () => { View.path = $("show-path").checked; document.body.classList.toggle("no-path", !View.path); repaint(); });
  $("zoom-in").addEventListener("click", () => zoom(0.5, undefined, true));
  $("zoom-out").addEventListener("click", () => zoom(2, undefined, true));
  $("zoom-all").addEventListener("click", () => setRange(0, D.span, true));
  $("panel-close").addEventListener("click", () => select("", -1));
  $("panel-back").addEventListener("click", () => history.back());
  addEventListener("popstate", followHash);
  addEventListener("resize", () => fitTimeline());
  addEventListener("beforeprint", () => { fitTimeline(true); paintAll(); });  // paper does not scroll
  addEventListener("afterprint", () => fitTimeline());
  new ResizeObserver(repaint).observe($("lanes"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readInk(); inkCharts(); repaint(); });
  fitTimeline();
  followHash();
  document.body.dataset.ready = "yes";
}
start().catch(error => {
  $("trouble").textContent = error.message;
  $("trouble").hidden = false;
  throw error;
});
