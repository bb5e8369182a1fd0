// What every page shares: words, times, the API, forms, and pages that
// bring themselves up to date.
"use strict";

const av = {
  words: JSON.parse(document.body.dataset.words),

  /** A word of the page's language, `{}` replaced. */
  t(key, ...values) {
    let i = 0;
    return (av.words[key] ?? key).replace(/\{\}/g, () => values[i++]);
  },

  /** Calls the JSON API. Answers { status, body, etag, date }. */
  async api(method, path, body, etag, type = "application/json") {
    const headers = { "X-CSRF-Token": document.body.dataset.csrf, Accept: "application/json" };
    // A file goes as it is, with its own type.
    const raw = body instanceof Blob;
    if (body !== undefined) headers["Content-Type"] = raw ? body.type : type;
    if (etag) headers["If-Match"] = etag;
    let answer;
    try {
      answer = await fetch(path, { method, headers, body: body === undefined || raw ? body : JSON.stringify(body) });
    } catch {
      return { status: 0, body: { error: av.t("offline") }, etag: null, date: null };
    }
    // The session is over: log in and come back.
    if (answer.status === 401) location.href = "/login?next=" + encodeURIComponent(location.pathname);
    const text = await answer.text();
    let json = {};
    try { json = text ? JSON.parse(text) : {}; } catch { json = { error: text.slice(0, 200) }; }
    const date = Date.parse(answer.headers.get("Date") ?? "");
    if (answer.status >= 400) av.translate(json);
    return { status: answer.status, body: json, etag: answer.headers.get("ETag"), date: Number.isNaN(date) ? null : date };
  },

  /** Puts what the API says of an error into the page's language, where that is known. */
  translate(body) {
    if (typeof body.error === "string") {
      // "field: problem", where there is one field.
      const [, field, problem] = /^([\w.[\]]+: )?(.*)$/s.exec(body.error);
      body.error = (field ?? "") + av.problem(problem);
    }
    for (const one of body.fields ?? []) one.problem = av.problem(one.problem);
  },

  problem(text) {
    for (const [from, to] of av.words.problems ?? []) {
      const parts = from.split("{}").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
      const found = new RegExp(`^${parts.join("(.*)")}$`, "s").exec(text);
      if (found) {
        let i = 0;
        return to.replace(/\{\}/g, () => found[(i += 1)]);
      }
    }
    return text;
  },

  /** Says something at the foot of the page for a few seconds. */
  say(text, wrong) {
    const said = document.getElementById("said");
    said.textContent = text;
    said.className = wrong ? "wrong" : "";
    said.hidden = false;
    clearTimeout(av.saidTimer);
    av.saidTimer = setTimeout(() => { said.hidden = true; }, wrong ? 8000 : 3000);
  },

  /** Asks before something that cannot be undone. */
  ask(text) {
    const dialog = document.getElementById("ask");
    dialog.querySelector("p").textContent = text;
    dialog.returnValue = "no";
    dialog.showModal();
    return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
  },

  /** Shows the errors of a refused form beside their fields. */
  showProblems(form, answer) {
    av.clearProblems(form);
    const left = [];
    for (const { field, problem } of answer.body.fields ?? []) {
      // The nearest part of the form: a.b[0].c, a.b, a.
      let place = null;
      for (let name = field; name && !place; name = name.replace(/(\.|\[)?[^.[]*$/, "")) {
        place = form.querySelector(`[data-field="${CSS.escape(name)}"]`);
        if (!name.includes(".") && !name.includes("[")) break;
      }
      if (!place || place.closest("[hidden]")) { left.push(`${field}: ${problem}`); continue; }
      place.classList.add("wrong");
      const said = document.createElement("span");
      said.className = "field-problem";
      said.id = `problem-${field}`;
      said.textContent = problem;
      place.append(said);
      const input = place.querySelector("input, select, textarea");
      input?.setAttribute("aria-invalid", "true");
      input?.setAttribute("aria-describedby", said.id);
    }
    const head = form.querySelector(".problem");
    const general = answer.status === 412 ? av.t("lost") : answer.status === 422 && form.querySelector(".wrong") ? av.t("invalid") : answer.body.error;
    head.textContent = [general, ...left].join(" — ");
    head.hidden = false;
    (form.querySelector(".wrong input, .wrong select, .wrong textarea") ?? head).scrollIntoView({ block: "center" });
    form.querySelector(".wrong input, .wrong select, .wrong textarea")?.focus();
  },

  clearProblems(form) {
    form.querySelectorAll(".field-problem").forEach((said) => said.remove());
    form.querySelectorAll(".wrong").forEach((place) => place.classList.remove("wrong"));
    form.querySelectorAll("[aria-invalid]").forEach((input) => {
      input.removeAttribute("aria-invalid");
      input.removeAttribute("aria-describedby");
    });
    form.querySelector(".problem").hidden = true;
  },

  /** Runs `work` with the form's buttons out of reach. */
  async busy(form, work) {
    const buttons = [...form.querySelectorAll("button")];
    buttons.forEach((button) => { button.disabled = true; });
    try { return await work(); } finally { buttons.forEach((button) => { button.disabled = false; }); }
  },

  number(input) {
    const text = input.value.trim();
    if (text === "") return undefined;
    const value = Number(text);
    return Number.isNaN(value) ? text : value;
  },

  /** How long ago, in the page's language: the server's `span`. */
  span(ms) {
    const s = Math.max(0, Math.floor(ms / 1000));
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min`;
    if (s < 172800) return `${Math.floor(s / 3600)} h`;
    return `${Math.floor(s / 86400)} ${av.t("day")}`;
  },

  /** The browser's own form of the page's language: day before month, or not. */
  locale: navigator.languages.find((tag) => tag.split("-")[0] === document.documentElement.lang) ?? document.documentElement.lang,

  /** Brings the times under `root` up to date, in the browser's zone. */
  times(root) {
    const now = Date.now() + av.skew;
    for (const time of root.querySelectorAll("time[data-as]")) {
      const at = new Date(time.dateTime);
      const exact = at.toLocaleString(av.locale, { dateStyle: "medium", timeStyle: "medium" });
      const text = time.dataset.as === "at"
        ? at.toLocaleString(av.locale, { dateStyle: "short", timeStyle: "short" })
        : time.dataset.as === "ago" ? av.t("ago", av.span(now - at)) : av.span(now - at);
      if (time.textContent !== text) time.textContent = text;
      if (time.title !== exact) time.title = exact;
    }
  },

  /** Server's clock less the browser's, in ms. */
  skew: 0,

  /** Shows the rows whose name has every word of the box. */
  filter(box) {
    const words = av.fold(box.value).split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of document.querySelectorAll(box.dataset.rows)) {
      const text = av.fold(row.cells[0].textContent);
      row.hidden = !words.every((word) => text.includes(word));
      if (!row.hidden) shown += 1;
    }
    const none = document.getElementById("filter-none");
    if (none) none.hidden = shown > 0;
  },

  /** Without case and accents: "salle a" finds "Sàlle A". */
  fold: (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase(),

  /** Takes a part of the page over from the server. */
  async refresh(part) {
    // Never under somebody's hands.
    const at = document.activeElement;
    if (document.hidden || document.querySelector("dialog[open]")) return;
    if (part.contains(at) && (at.matches("input, select, textarea") && (at.value !== "" || at.type !== "search"))) return;
    if ([...part.querySelectorAll("input:not([type=search])")].some((input) => input.value !== "")) return;
    const path = part.contains(at) ? av.pathTo(part, at) : null;
    let answer;
    try { answer = await fetch(location.pathname + location.search, { headers: { Accept: "text/html" } }); } catch { return; }
    if (answer.redirected || !answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById(part.id);
    if (!fresh) return;
    const box = part.querySelector("input[type=search]");
    const open = [...part.querySelectorAll("details")].map((details) => details.open);
    const value = box?.value;
    part.replaceChildren(...document.adoptNode(fresh).childNodes);
    part.querySelectorAll("details").forEach((details, i) => { details.open = open[i] ?? false; });
    av.times(part);
    const newBox = part.querySelector("input[type=search]");
    if (newBox && value) { newBox.value = value; av.filter(newBox); }
    if (path) path.reduce((node, i) => node?.children[i], part)?.focus({ preventScroll: true });
    part.dispatchEvent(new CustomEvent("refreshed"));
  },

  pathTo(root, node) {
    const path = [];
    for (; node !== root; node = node.parentElement) path.unshift([...node.parentElement.children].indexOf(node));
    return path;
  },
};

av.times(document);
setInterval(() => av.times(document), 5000);

for (const part of document.querySelectorAll("[data-refresh]")) {
  setInterval(() => av.refresh(part), Number(part.dataset.refresh) * 1000);
}

// The menu closes where somebody goes on elsewhere.
const more = document.querySelector(".top .more");
document.addEventListener("click", (event) => { if (more?.open && !more.contains(event.target)) more.open = false; });
more?.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !more.open) return;
  more.open = false;
  more.querySelector("summary").focus();
});
more?.addEventListener("focusout", (event) => {
  if (event.relatedTarget && !more.contains(event.relatedTarget)) more.open = false;
});

document.addEventListener("input", (event) => {
  if (event.target.matches("input[type=search][data-rows]")) av.filter(event.target);
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.matches("input, select, textarea")) return;
  const box = document.querySelector("input[type=search]");
  if (box) { event.preventDefault(); box.focus(); }
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-delete]");
  if (!button || !(await av.ask(button.dataset.ask))) return;
  const path = button.dataset.delete;
  // What has versions is deleted as it was seen just now.
  const got = "noTag" in button.dataset ? { status: 200 } : await av.api("GET", path);
  const answer = got.status === 200 ? await av.api("DELETE", path, undefined, got.etag) : got;
  if (answer.status >= 200 && answer.status < 300) location.href = button.dataset.then;
  else av.say(answer.body.error, true);
});
