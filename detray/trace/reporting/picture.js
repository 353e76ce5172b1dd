/* The graph as it was laid out (layout.py), drawn in SVG. */
const SVG = "http://www.w3.org/2000/svg";
function svg(tag, attributes, ...inside) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...inside);
  return node;
}
const counts = [];  // of edges, drawn above everything
const Picture = {scale: 1, svg: null};

function makePicture() {
  const {boxes, edges, width, height, total, isWhole} = D.graph, box = $("graph-body");
  $("graph-note").textContent = isWhole ? plural(total, "node") : plural(total, "task and object", "tasks and objects") + ", equals drawn as one";
  if (!boxes.length) { box.replaceWith(el("p", "empty", "No task was submitted in this trace.")); return; }
  const arrow = (id, cls) => svg("marker", {id, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 9, markerHeight: 9, markerUnits: "userSpaceOnUse", orient: "auto"}, svg("path", {d: "M0 0L8 4L0 8z", class: cls}));
  const root = svg("svg", {viewBox: "0 0 " + width + " " + height, role: "img", "aria-label": "The computation graph"},
    svg("defs", {}, arrow("arrow", "tip"), arrow("arrow-path", "tip onpath")),
    ...edges.map(edge => drawEdge(edge, boxes)), ...boxes.map(drawBox), ...counts.splice(0));
  Picture.svg = root;
  box.replaceChildren(root);
  for (const [id, act] of [["graph-in", () => scalePicture(Picture.scale * 1.3)], ["graph-out", () => scalePicture(Picture.scale / 1.3)], ["graph-fit", fitPicture]]) $(id).addEventListener("click", act);
  fitPicture();
  new ResizeObserver(() => { if (Picture.isFit) fitPicture(); }).observe(box);
  onSelect.push(markPicture);
}
function fitPicture() {
  scalePicture(Math.min(1, ($("graph-body").clientWidth - 4) / D.graph.width));
  if (Picture.scale < 0.45) scalePicture(0.45);
  Picture.isFit = true;
}
function scalePicture(scale) {
  Picture.scale = Math.max(0.1, Math.min(4, scale));
  Picture.isFit = false;
  Picture.svg.setAttribute("width", Math.round(D.graph.width * Picture.scale));
  Picture.svg.setAttribute("height", Math.round(D.graph.height * Picture.scale));
}
function drawBox(box, number) {
  const [x, y] = box.at, [w, h] = box.size, isTask = box.kind === "task";
  const cls = "box " + box.kind + " is-" + box.state.replace(/\W/g, "") + (box.path ? " onpath" : "");
  const shape = more => isTask ? svg("rect", {x: x - w / 2 + more, y: y - h / 2 + more, width: w, height: h, rx: 3}) : svg("ellipse", {cx: x + more, cy: y + more, rx: w / 2, ry: h / 2});
  const first = y - (box.lines.length - 1) * 8 + 4;
  const node = svg("g", {class: cls, tabindex: 0, role: "button", "data-box": number},
    ...(box.count > 1 ? [shape(3.5)] : []), shape(0),
    ...box.lines.map((line, i) => svg("text", {x, y: first + i * 16}, line)));
  node.append(svg("title", {}, box.lines.join(" ") + (box.states ? "\n" + box.states : "") + (box.path ? "\non the critical path" : "")));
  const open = () => openBox(number);
  node.addEventListener("click", open);
  node.addEventListener("keydown", event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(); } });
  return node;
}
function openBox(number) {
  const members = listOf(G, number);
  if (members.length === 1 && D.graph.boxes[number].count === 1) return members[0] >= 0 ? select("task", members[0]) : select("object", -1 - members[0]);
  select("group", number);
}
function drawEdge(edge, boxes) {
  const a = boxes[edge.from], b = boxes[edge.to], group = svg("g", {class: "edge " + edge.kind + (edge.path ? " onpath" : "")});
  const down = b.at[1] >= a.at[1] ? 1 : -1;
  let points = [[a.at[0], a.at[1] + a.size[1] / 2 * down], ...edge.bends, [b.at[0], b.at[1] - b.size[1] / 2 * down]];
  let d = "M" + points[0].join(" ");
  if (edge.from === edge.to) {
    const right = a.at[0] + a.size[0] / 2, y = a.at[1];
    d = "M" + right + " " + (y - 6) + "C" + [right + 26, y - 14, right + 26, y + 14, right, y + 6].join(" ");
    points = [[right + 20, y - 8], [right + 20, y + 8]];
  } else for (let i = 1; i < points.length; i++) {
    const middle = (points[i - 1][1] + points[i][1]) / 2;
    d += "C" + [points[i - 1][0], middle, points[i][0], middle, ...points[i]].join(" ");
  }
  const says = {launched: "launches", produces: "makes", consumes: "is an argument of", nested: "is referred to in the arguments of", contains: "holds a reference to"}[edge.kind] || edge.kind;
  group.append(svg("path", {d, "marker-end": edge.path ? "url(#arrow-path)" : "url(#arrow)"}, svg("title", {}, says + (edge.count > 1 ? ", " + count(edge.count) + " times" : "") + (edge.bytes > 0 ? ", " + size(edge.bytes) : ""))));
  if (edge.count > 1 && edge.kind !== "produces") {
    const at = points.length / 2, p = points[Math.ceil(at) - 1], q = points[Math.floor(at)];
    counts.push(svg("text", {class: "times", x: (p[0] + q[0]) / 2 + 5, y: (p[1] + q[1]) / 2 + 4}, "×" + count(edge.count)));
  }
  return group;
}
function boxOf(kind, key) {
  const wanted = kind === "object" ? -1 - key : key;
  if (kind === "group") return key;
  if (kind !== "task" && kind !== "object") return -1;
  for (let i = 0; i + 1 < G.at.length; i++) for (let j = G.at[i]; j < G.at[i + 1]; j++) if (G.items[j] === wanted) return i;
  return -1;
}
function markPicture() {
  for (const node of Picture.svg.querySelectorAll(".chosen")) node.classList.remove("chosen");
  const number = boxOf(View.kind, View.key);
  const node = number >= 0 && Picture.svg.querySelector('[data-box="' + number + '"]');
  if (node) node.classList.add("chosen");
}
