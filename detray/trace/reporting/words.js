/* Numbers in words, and small pieces of the page. Text is only ever set as text. */
const fixed = (n, digits) => n.toLocaleString("en-US", {minimumFractionDigits: digits, maximumFractionDigits: digits});
const count = n => Math.round(n).toLocaleString("en-US");
const plural = (n, word, many) => count(n) + " " + (n === 1 ? word : many || word + "s");
function duration(us) {  // three or four digits, one unit
  if (isNaN(us)) return "—";
  const a = Math.abs(us);
  if (a < 1000) return fixed(us, 0) + " µs";
  if (a < 1e6) return fixed(us / 1e3, a < 1e4 ? 2 : a < 1e5 ? 1 : 0) + " ms";
  if (a < 6e7) return fixed(us / 1e6, a < 1e7 ? 2 : 1) + " s";
  const s = Math.round(us / 1e6);
  return s < 3600 ? Math.floor(s / 60) + " min " + s % 60 + " s" : Math.floor(s / 3600) + " h " + Math.floor(s % 3600 / 60) + " min";
}
const exact = us => fixed(us / 1e3, 3).replace(/,/g, "") + " ms";  // as stories say it
const moment = us => isNaN(us) ? "?" : (us / 1e6).toFixed(6) + " s";
function size(bytes) {  // as graph.size_text
  if (bytes < 1000) return bytes + " B";
  for (const unit of ["kB", "MB", "GB", "TB"]) {
    bytes /= 1000;
    if (bytes < 1000 || unit === "TB") return String(Number(bytes.toPrecision(3))) + " " + unit;
  }
}
const percent = (part, all) => all ? fixed(100 * part / all, part / all < 0.1 ? 1 : 0) + " %" : "—";
const cut = (text, n) => text.length > n ? text.slice(0, n - 1) + "…" : text;

function el(tag, cls, ...inside) {
  const node = document.createElement(tag);
  if (cls) node.className = cls;
  node.append(...inside.flat().filter(part => part !== null && part !== undefined));
  return node;
}
function titled(node, title) { node.title = title; return node; }
function button(text, cls, act) {
  const node = el("button", cls, text);
  node.type = "button";
  node.addEventListener("click", act);
  return node;
}
/* A link to a thing; a click shows its story. */
function link(kind, key, text) {
  const node = el("a", "ref", text);
  node.href = "#at=" + encodeURIComponent(kind + ":" + nameOf(kind, key));
  node.addEventListener("click", event => { if (!event.ctrlKey && !event.metaKey) { event.preventDefault(); select(kind, key); } });
  return node;
}
const taskLink = t => link("task", t, isRoot(t) ? taskFunction(t) + " (" + taskShort(t) + ")" : taskFunction(t) + " (" + taskShort(t) + ")");
const objectLink = o => link("object", o, objectShort(o));
const seatLink = s => link("worker", s, seatName(s));
const nodeLink = core => link("node", core, nodeName(core));
const functionLink = f => link("function", f, D.functions[f]);
function joined(items, separator = ", ") { return items.flatMap((item, i) => i ? [separator, item] : [item]); }
function some(items, make, limit = 4) {  // as sentences._items
  const shown = joined([...items.slice(0, limit)].map(make));
  return items.length > limit ? [...shown, " and " + count(items.length - limit) + " more"] : shown;
}
/* Rows of at most `limit`, and a button for as many more. */
function growing(items, make, limit, into) {
  let shown = 0;
  const more = button("", "more", () => grow());
  function grow() {
    into.append(...[...items.slice(shown, shown + limit)].map(make));
    shown = Math.min(items.length, shown + limit);
    more.textContent = count(items.length - shown) + " more";
    more.hidden = shown >= items.length;
  }
  grow();
  return more;
}
