/* What pointers and keys do to the timeline, and the words under the pointer. */
const MERE_CLICK = 4;  // pixels
let selecting = null;

function thingAt(x, y) {  // in the rows: {row, kind, key, others}
  const at = y + $("scroll").scrollTop, row = Lanes.rows.find(row => at >= row.y && at < row.y + row.height);
  if (!row) return null;
  if (x < GUTTER || row.kind === "node") return {row, kind: row.kind, key: row.key};
  const scale = plotWidth() / (View.to - View.from), reach = 2.5 / scale, us = timeAt(x);
  const items = listOf(runsOfSeat(), row.key);
  let best = -1, others = 0, gap = Infinity;
  for (let i = firstSeen(items, begin, us - reach * 2); i < items.length && begin(items[i]) <= us + reach; i++) {
    const a = items[i];
    if (!(finish(a) >= us - reach)) continue;
    const far = us < begin(a) ? begin(a) - us : us > finish(a) ? us - finish(a) : 0;
    if (Math.floor(xOf(begin(a))) === Math.floor(x) && (finish(a) - begin(a)) * scale < 1.6) others++;
    if (far < gap || (far === gap && finish(a) - begin(a) > finish(best) - begin(best))) { gap = far; best = a; }
  }
  if (best >= 0) return {row, kind: "run", key: best, others};
  for (const b of listOf(blocksOfSeat(), row.key)) if (B.started[b] - reach <= us && us <= B.started[b] + B.took[b] + reach) return {row, kind: "block", key: b};
  if (S.client[row.key] < 0) for (const w of listOf(waitsOfSeat(), row.key)) if (W.started[w] - reach <= us && us <= W.started[w] + W.took[w] + reach) return {row, kind: "wait", key: w};
  return {row, kind: "", key: -1};
}
function tipFor(thing) {
  const {kind, key} = thing;
  if (kind === "run") {
    const t = A.task[key], waited = begin(key) - T.submitted[t], stood = blockedIn(key);
    return [el("b", "", taskFunction(t)), " " + taskShort(t) + (A.number[key] ? ", attempt " + A.number[key] : ""), el("br"),
      runWords(key), stood > 0 ? ", of that " + duration(stood) + " in get" : "", waited >= 0 ? el("span", "soft", el("br"), "began at " + moment(begin(key)) + ", " + duration(waited) + " after its submission") : "",
      A.error[key] ? el("div", "bad", cut(D.texts[A.error[key]], 160)) : "",
      thing.others > 1 ? el("div", "soft", count(thing.others) + " runs lie within this pixel") : ""];
  }
  if (kind === "block") return [el("b", "", blockName(key)), el("br"), "told together: busy for " + duration(B.busy[key]) + " of " + duration(B.took[key])];
  if (kind === "wait") return [el("b", "", seatName(W.seat[key])), " " + waitWords(key), el("br"), "for " + duration(W.took[key]) + ", from " + moment(W.started[key])];
  if (kind === "worker") return [el("b", "", seatName(key)), S.pid[key] ? " pid " + S.pid[key] : "", S.reason[key] ? el("div", "bad", D.texts[S.reason[key]]) : ""];
  if (kind === "node") return [el("b", "", nodeName(key)), " " + nodeOf(key).machine];
  return null;
}
function runWords(a) {
  const state = D.states[A.state[a]], took = finish(a) - begin(a);
  if (state === "finished") return "ran for " + duration(took);
  if (state === "sent") return isNaN(A.started[a]) ? "was sent; the trace does not show how it ended" : "was running when the trace ended";
  return state + " after " + duration(took);
}
function blockedIn(a) {
  let sum = 0, until = begin(a);
  const waits = listOf(waitsOfTask(), A.task[a]);
  for (const w of waits) {
    if (W.seat[w] !== A.seat[a]) continue;
    const from = Math.max(W.started[w], until), to = Math.min(W.started[w] + W.took[w], finish(a));
    if (to > from) { sum += to - from; until = to; }
  }
  return sum;
}
function showTip(parts, event) {
  const tip = $("tip");
  tip.hidden = !parts;
  if (!parts) return;
  tip.replaceChildren(...parts);
  const box = tip.getBoundingClientRect(), right = event.clientX + 16 + box.width > innerWidth;
  tip.style.left = Math.max(4, right ? event.clientX - box.width - 12 : event.clientX + 16) + "px";
  tip.style.top = Math.min(event.clientY + 18, innerHeight - box.height - 6) + "px";
}
function chooseThing(thing) {
  if (!thing || !thing.kind) return;
  if (thing.kind === "run") select("task", A.task[thing.key]);
  else if (thing.kind === "wait") select("worker", W.seat[thing.key]);
  else select(thing.kind, thing.key);
}

/* ------------------------------------------------- pointers */
function listenLanes() {
  const rows = $("scroll"), fingers = new Map();
  const inside = event => { const box = $("lanes").getBoundingClientRect(); return [event.clientX - box.left, event.clientY - $("rows").getBoundingClientRect().top]; };
  let held = null, pinch = null;
  $("lanes").addEventListener("wheel", event => {
    const [x] = inside(event);
    if (x < GUTTER && Lanes.height > rows.clientHeight) return;  // over the names, the rows scroll
    event.preventDefault();
    const unit = event.deltaMode ? 24 : 1;
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey) {
      const way = (event.deltaX || event.deltaY) * unit / plotWidth() * (View.to - View.from);
      setRange(View.from + way, View.to + way);
    } else zoom(Math.exp(Math.max(-120, Math.min(120, event.deltaY * unit)) * (event.ctrlKey ? 0.01 : 0.0022)), timeAt(Math.max(x, GUTTER)));
  }, {passive: false});
  $("lanes").addEventListener("pointerdown", event => {
    if (event.button || (event.target !== $("rows") && event.target !== $("axis") && event.target !== rows)) return;
    const [x, y] = inside(event);
    if (event.target === rows && event.offsetX > rows.clientWidth) return;  // the scroll bar
    fingers.set(event.pointerId, x);
    if (fingers.size === 2) {
      const [a, b] = [...fingers.values()];
      pinch = {apart: Math.max(8, Math.abs(a - b)), middle: timeAt((a + b) / 2), width: View.to - View.from};
      held = null;
      return;
    }
    $("lanes").setPointerCapture(event.pointerId);
    held = {x, y, from: View.from, to: View.to, top: rows.scrollTop, moved: false, span: event.shiftKey || event.target === $("axis")};
  });
  $("lanes").addEventListener("pointermove", event => {
    const [x, y] = inside(event);
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, x);
    if (pinch && fingers.size === 2) {
      const [a, b] = [...fingers.values()], width = pinch.width * pinch.apart / Math.max(8, Math.abs(a - b));
      const from = pinch.middle - ((a + b) / 2 - GUTTER) / plotWidth() * width;
      return setRange(from, from + width);
    }
    if (!held) {
      const thing = y >= 0 && event.target === $("rows") ? thingAt(x, y) : null;
      $("lanes").style.cursor = thing && thing.kind ? "pointer" : x > GUTTER ? "grab" : "default";
      return showTip(thing && tipFor(thing), event);
    }
    if (Math.abs(x - held.x) + Math.abs(y - held.y) > MERE_CLICK) held.moved = true;
    if (!held.moved) return;
    showTip(null);
    if (held.span) { selecting = [Math.max(GUTTER, Math.min(held.x, x)), Math.max(held.x, x)]; showSelecting(); return; }
    $("lanes").style.cursor = "grabbing";
    const way = (held.x - x) / plotWidth() * (held.to - held.from);
    setRange(held.from + way, held.to + way);
    rows.scrollTop = held.top + held.y - y;
  });
  const done = event => {
    fingers.delete(event.pointerId);
    if (fingers.size < 2) pinch = null;
    const was = held;
    held = null;
    if (!was || event.type === "pointercancel") return;
    if (selecting) {
      const [a, b] = selecting;
      selecting = null;
      showSelecting();
      if (b - a > MERE_CLICK) setRange(timeAt(a), timeAt(b), true);
    } else if (!was.moved && was.y >= 0) chooseThing(thingAt(was.x, was.y));
  };
  $("lanes").addEventListener("pointerup", done);
  $("lanes").addEventListener("pointercancel", done);
  $("lanes").addEventListener("pointerleave", () => showTip(null));
  $("lanes").addEventListener("dblclick", event => {
    const [x, y] = inside(event), thing = y >= 0 ? thingAt(x, y) : null;
    if (thing && thing.kind === "run") showSpan(begin(thing.key), finish(thing.key));
    else if (x > GUTTER) setRange(0, D.span, true);
  });
  rows.addEventListener("scroll", repaint);
  listenOverview();
}
function showSelecting() {
  const mark = $("marked") || $("lanes").appendChild(Object.assign(el("div"), {id: "marked"}));
  mark.hidden = !selecting;
  if (!selecting) return;
  mark.style.left = selecting[0] + "px";
  mark.style.width = selecting[1] - selecting[0] + "px";
  mark.textContent = duration(timeAt(selecting[1]) - timeAt(selecting[0]));
}
function listenOverview() {
  const strip = $("overview");
  const at = event => Math.min(D.span, Math.max(0, (event.clientX - strip.getBoundingClientRect().left - GUTTER) / plotWidth() * D.span));
  let held = null;
  strip.addEventListener("pointerdown", event => {
    strip.setPointerCapture(event.pointerId);
    const us = at(event);
    held = {us, from: View.from, to: View.to, moved: false, pans: !isWhole() && us >= View.from && us <= View.to};
  });
  strip.addEventListener("pointermove", event => {
    if (!held) return;
    const us = at(event);
    if (Math.abs(us - held.us) / D.span * plotWidth() > MERE_CLICK) held.moved = true;
    if (!held.moved) return;
    if (held.pans) setRange(held.from + us - held.us, held.to + us - held.us);
    else setRange(Math.min(us, held.us), Math.max(us, held.us));
  });
  strip.addEventListener("pointerup", () => {
    if (held && !held.moved && !isWhole()) { const half = (View.to - View.from) / 2; setRange(held.us - half, held.us + half, true); }
    held = null;
  });
  strip.addEventListener("dblclick", () => setRange(0, D.span, true));
}

/* ------------------------------------------------- keys */
function listenKeys() {
  document.addEventListener("keydown", event => {
    const isTyping = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "checkbox";
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") return isTyping ? event.target.blur() : select("", -1);
    if (isTyping) return;
    const quarter = (View.to - View.from) / 4, inLanes = $("lanes").contains(event.target) || event.target === document.body;
    const keys = {
      "/": () => $("query").focus(),
      "+": () => zoom(0.5, undefined, true), "=": () => zoom(0.5, undefined, true), "-": () => zoom(2, undefined, true), "_": () => zoom(2, undefined, true),
      "0": () => setRange(0, D.span, true),
      "c": () => $("show-path").click(),
      "n": () => nextRun(1), "p": () => nextRun(-1),
      ...(inLanes ? {ArrowLeft: () => setRange(View.from - quarter, View.to - quarter, true), ArrowRight: () => setRange(View.from + quarter, View.to + quarter, true)} : {}),
    };
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (act) { event.preventDefault(); act(); }
    if (event.key === "Enter" && event.target === $("lanes") && View.kind) $("panel-body").focus();
  });
}
function nextRun(way) {  // on the same worker; without one, the first run that can be seen
  const a = View.kind === "task" ? lastRun(View.key) : -1;
  const seat = a >= 0 ? A.seat[a] : View.kind === "worker" ? View.key : (Lanes.rows.find(row => row.kind === "worker" && listOf(runsOfSeat(), row.key).length) || {}).key;
  if (seat === undefined || seat < 0) return;
  const items = listOf(runsOfSeat(), seat), at = a >= 0 ? items.indexOf(a) : way > 0 ? firstSeen(items, begin, View.from) - 1 : items.length;
  const next = items[at + way];
  if (next === undefined) return;
  select("task", A.task[next]);
  reveal("task", A.task[next]);
}
