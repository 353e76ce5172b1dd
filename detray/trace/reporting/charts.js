/* Tasks and memory over time, below the timeline and by the same clock. */
const CHART = 104;
const TASK_LINES = [["running", "running", "running"], ["blocked", "standing in get", "blocked"], ["ready", "ready, no CPU is free", "ready"], ["others", "waiting for arguments", "rest"]];
const MEMORY_LINES = [["arena_bytes", "arena", "arena"], ["spilled_bytes", "in files", "spilled"], ["inline_bytes", "kept by the service", "inline"]];

/* By pixel, the highest value that a node had; nodes are added up. */
function sampled(name, wide) {
  const sum = new Float64Array(wide), step = (View.to - View.from) / wide;
  for (const row of D.usage) {
    if (View.node >= 0 && row.core !== View.node) continue;
    const values = name === "others" ? othersOf(row) : row.values[name];
    let i = 0;
    for (let x = 0; x < wide; x++) {
      const from = View.from + x * step, to = from + step;
      while (i + 1 < row.at.length && row.at[i + 1] <= from) i++;
      if (!row.at.length || row.at[i] >= to || from > row.until) continue;
      let most = values[i];
      for (let j = i + 1; j < row.at.length && row.at[j] < to; j++) if (values[j] > most) most = values[j];
      sum[x] += most;
    }
  }
  return sum;
}
function othersOf(row) {
  const v = row.values;
  return row.others || (row.others = v.unfinished.map((n, i) => Math.max(0, n - v.running[i] - v.blocked[i] - v.ready[i])));
}
function drawChart(canvas, lines, words, limit) {
  const wide = Math.floor(plotWidth()), g = fresh(canvas, widthOf(), CHART), low = CHART - 8, high = low - 8;
  const layers = lines.map(([name]) => sampled(name, wide)), sums = new Float64Array(wide);
  for (const layer of layers) for (let x = 0; x < wide; x++) sums[x] += layer[x];
  const most = Math.max(1, ...sums), top = limit && limit < most * 4 ? Math.max(most, limit) : most;
  g.font = SMALL;
  g.textBaseline = "middle";
  g.fillStyle = Ink.faint;
  g.fillRect(GUTTER, low - high, wide, 1);
  const base = new Float64Array(wide);
  layers.forEach((layer, n) => {
    g.fillStyle = Ink[lines[n][2]];
    g.beginPath();
    g.moveTo(GUTTER, low);
    for (let x = 0; x < wide; x++) { const y = low - (base[x] + layer[x]) / top * high; g.lineTo(GUTTER + x, y); g.lineTo(GUTTER + x + 1, y); }
    for (let x = wide - 1; x >= 0; x--) { const y = low - base[x] / top * high; g.lineTo(GUTTER + x + 1, y); g.lineTo(GUTTER + x, y); }
    g.fill();
    for (let x = 0; x < wide; x++) base[x] += layer[x];
  });
  if (limit && top >= limit) {
    const y = Math.round(low - limit / top * high) + 0.5;
    g.strokeStyle = Ink.bad;
    g.setLineDash([4, 3]);
    g.beginPath(); g.moveTo(GUTTER, y); g.lineTo(GUTTER + wide, y); g.stroke();
    g.setLineDash([]);
  }
  g.fillStyle = Ink.line;
  g.fillRect(GUTTER, low, wide, 1);
  g.fillStyle = Ink.soft;
  g.textAlign = "right";
  g.fillText(words(top), GUTTER - 8, low - high + 1);
  g.fillText("0", GUTTER - 8, low - 1);
  canvas.setAttribute("aria-label", lines.map(([, says], n) => says + ": at most " + words(Math.max(...layers[n]))).join("; "));
  canvas.layers = layers;
}
function caption(node, head, lines, extra) {
  node.replaceChildren(el("b", "", head), ...lines.map(([, says, colour]) => { const key = el("span", "key", says); key.style.setProperty("--c", Ink[colour]); return key; }), extra || "");
}
function drawCharts() {
  if (!D.usage.length) return;
  const nodes = D.nodes.filter(row => View.node < 0 || row.core === View.node);
  const room = nodes.reduce((sum, row) => sum + row.arena_bytes, 0);
  drawChart($("chart-tasks"), TASK_LINES, count);
  drawChart($("chart-memory"), MEMORY_LINES, size, room);
}
function makeCharts() {
  if (!D.isOne) TASK_LINES[3][1] = "waiting for arguments, or sent to another node";
  const note = D.usage.length ? D.usageNote && "Known only as far as the trace could be played: " + D.usageNote + "." :
    "Memory and waiting tasks are read from the schedulers' tables while the trace is played, and this one cannot be: " + (D.usageNote || "it holds no steps of a node") + ".";
  $("usage-note").hidden = !note;
  $("usage-note").textContent = note || "";
  for (const figure of document.querySelectorAll("#charts figure")) figure.hidden = !D.usage.length;
  if (!D.usage.length) return;
  if (D.usage.length > 1) {
    const pick = el("select", "");
    pick.setAttribute("aria-label", "Of which node");
    pick.append(...[[-1, "all nodes"], ...D.usage.map(row => [row.core, nodeName(row.core)])].map(([core, says]) => { const o = el("option", "", says); o.value = core; return o; }));
    pick.addEventListener("change", () => { View.node = Number(pick.value); inkCharts(); repaint(); });
    $("pick-node").append(pick);
  }
  for (const [id, lines, words] of [["chart-tasks", TASK_LINES, count], ["chart-memory", MEMORY_LINES, size]]) {
    $(id).addEventListener("pointermove", event => {
      const x = Math.floor(event.offsetX - GUTTER), layers = $(id).layers;
      if (!layers || x < 0 || x >= layers[0].length) return showTip(null);
      showTip([el("b", "", "at " + moment(timeAt(event.offsetX))), ...lines.map(([, says], n) => el("div", "", words(layers[n][x]) + " " + says))], event);
    });
    $(id).addEventListener("pointerleave", () => showTip(null));
  }
}
function inkCharts() {
  if (!D.usage.length) return;
  const nodes = D.nodes.filter(row => View.node < 0 || row.core === View.node);
  const room = nodes.reduce((sum, row) => sum + row.arena_bytes, 0);
  const key = el("span", "soft", "the arena has room for " + size(room));
  caption($("tasks-caption"), "Tasks", TASK_LINES);
  caption($("memory-caption"), "Memory", MEMORY_LINES, key);
}
