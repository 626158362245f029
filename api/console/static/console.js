// Keyboard, countdowns and what a page does while the connection is away. Every page works without this file.
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const all = (selector) => [...document.querySelectorAll(selector)];
  const one = (selector) => document.querySelector(selector);

  // ---- time
  const span = (seconds) => {
    const left = Math.max(0, Math.round(seconds));
    if (left < 60) return `${left} s`;
    const days = Math.floor(left / 86400), hours = Math.floor(left / 3600) % 24, minutes = Math.floor(left / 60) % 60;
    if (days) return hours ? `${days} d ${hours} h` : `${days} d`;
    if (hours) return minutes ? `${hours} h ${minutes} min` : `${hours} h`;
    return `${minutes} min`;
  };
  const skew = Date.now() - Date.parse(root.dataset.now || new Date().toISOString());
  const tick = () => {
    const now = (Date.now() - skew) / 1000;
    for (const el of all("[data-countdown]")) {
      const left = Date.parse(el.dateTime) / 1000 - now;
      const text = left > 0 ? span(left) : "over";
      if (el.textContent !== text) el.textContent = text;
      el.classList.toggle("soon", left < 600);
    }
    for (const el of all("[data-ago]")) {
      const text = `${span(now - Date.parse(el.dateTime) / 1000)} ago`;
      if (el.textContent !== text) el.textContent = text;
    }
  };
  setInterval(tick, 1000);

  // ---- the list: one current item, moved by j and k
  let current = null;
  const items = () => all("[data-item]");
  const mark = (item, focus = true) => {
    if (!item) return;
    all(".current").forEach((el) => el.classList.remove("current"));
    item.classList.add("current");
    current = item.id;
    if (focus) item.querySelector("[data-open]")?.focus({ preventScroll: true });
    item.scrollIntoView({ block: "nearest" });
  };
  const move = (by) => {
    const list = items();
    if (!list.length) return one(by > 0 ? "[data-next]" : "[data-previous]")?.click();
    const at = list.findIndex((el) => el.id === current);
    mark(list[at < 0 ? 0 : Math.min(list.length - 1, Math.max(0, at + by))]);
  };
  const boxes = () => all("input[name=pick]:checked");
  const count = () => {
    const note = one("#marked");
    const n = boxes().length;
    if (note) note.textContent = n ? `${n} marked` : "Mark several to answer them at once.";
  };
  const here = () => document.getElementById(current);

  const keys = {
    j: () => move(1),
    k: () => move(-1),
    x: () => { const box = here()?.querySelector("input[name=pick]"); if (box) { box.checked = !box.checked; count(); } },
    o: () => here()?.querySelector("[data-open]")?.click(),
    u: () => one("[data-up]")?.click(),
    a: () => { pick(); one("[data-approve]")?.focus(); },
    r: () => { pick(); (one("[data-reason]") || one(".batch input"))?.focus(); },
    e: () => {
      const edit = one("#edit");
      if (edit) { edit.open = true; one("[data-edit]")?.focus(); } else here()?.querySelector("[data-open]")?.click();
    },
    "?": () => one("#keys")?.showModal(),
  };
  // With nothing marked, a and r are about the current question.
  const pick = () => { if (!boxes().length) keys.x(); };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || one("dialog[open]")) return;
    const typing = event.target.matches("textarea, select, input:not([type=checkbox])");
    if (typing) { if (event.key === "Escape") event.target.blur(); return; }
    const act = keys[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  const help = one("#help-button");
  if (help) { help.hidden = false; help.addEventListener("click", keys["?"]); }
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-submit]")) event.target.form.submit();
    if (event.target.matches("input[name=pick]")) count();
  });
  document.addEventListener("click", (event) => {
    if (!event.target.matches("[data-all]")) return;
    const each = all("input[name=pick]");
    const on = boxes().length < each.length;
    for (const box of each) box.checked = on;
    count();
  });
  document.addEventListener("focusin", (event) => {
    const item = event.target.closest("[data-item]");
    if (item && item.id !== current) mark(item, false);
  });
  const refusal = one("#refusal");
  if (refusal) refusal.focus();

  // ---- live
  const busy = (event) => event.target.querySelectorAll?.("button").forEach((b) => { b.setAttribute("aria-busy", "true"); });
  document.addEventListener("submit", busy);
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
  document.addEventListener("htmx:after:swap", () => { if (current) document.getElementById(current)?.classList.add("current"); count(); tick(); });
  const offline = (away) => { const note = one("#offline"); if (note) note.hidden = !away; };
  document.addEventListener("htmx:sse:error", () => offline(true));
  document.addEventListener("htmx:sse:after:connection", () => offline(false));
  document.addEventListener("session-ended", () => { const note = one("#ended"); if (note) note.hidden = false; });
})();
