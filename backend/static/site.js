// A site's page: states live, and a filter over place, name, address and verdict.
"use strict";

(() => {
  const page = document.getElementById("page");
  const search = document.getElementById("search");
  const agent = document.getElementById("agent");
  const site = page.dataset.site;
  const chosen = new Set();
  let texts = new Map();

  /** The text by which each row is found, with its place. */
  function read() {
    texts = new Map();
    for (const body of page.querySelectorAll("#devices tbody")) {
      const place = av.fold(body.querySelector(".place").textContent);
      for (const row of body.querySelectorAll("tr[id]")) {
        texts.set(row, `${place} ${av.fold(row.querySelector(".name").textContent)}`);
      }
    }
  }

  function filter() {
    if (!search) return;
    const words = av.fold(search.value).split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const body of page.querySelectorAll("#devices tbody")) {
      let inPlace = 0;
      for (const row of body.querySelectorAll("tr[id]")) {
        const text = texts.get(row) ?? "";
        const fits = (chosen.size === 0 || chosen.has(row.dataset.verdict)) && words.every((word) => text.includes(word));
        if (row.hidden === fits) row.hidden = !fits;
        if (fits) inPlace += 1;
      }
      if (body.hidden !== (inPlace === 0)) body.hidden = inPlace === 0;
      shown += inPlace;
    }
    document.getElementById("none").hidden = shown > 0;
  }

  function show(row, [verdict, detail, since]) {
    const [, state, what, when] = row.cells;
    if (row.dataset.verdict !== verdict) {
      row.dataset.verdict = verdict;
      row.className = verdict;
      state.querySelector(".dot").className = `dot ${verdict}`;
      state.querySelector(".verdict > span").textContent = av.t(`verdict.${verdict}`);
      row.classList.add("changed");
    }
    if (what.textContent !== detail) what.textContent = detail;
    const time = when.querySelector("time");
    const iso = since ? new Date(since).toISOString() : "";
    if (!since) when.replaceChildren();
    else if (!time) {
      const fresh = document.createElement("time");
      fresh.dateTime = iso;
      fresh.dataset.as = "span";
      when.replaceChildren(fresh);
    } else if (Date.parse(time.dateTime) !== since) time.dateTime = iso;
  }

  let etag = null;
  async function poll() {
    if (document.hidden) return;
    let answer;
    try {
      answer = await fetch(`/sites/${site}/live`, { headers: etag ? { "If-None-Match": etag } : {}, cache: "no-store" });
    } catch {
      agent.textContent = av.t("offline");
      agent.className = "state bad";
      etag = null;
      return;
    }
    if (answer.status === 304) return;
    if (answer.redirected || !answer.ok) { etag = null; return; }
    const live = await answer.json();
    etag = answer.headers.get("ETag");
    agent.className = "state";
    agent.innerHTML = live.agent;
    const rows = page.querySelectorAll("#devices tr[id]");
    const ids = Object.keys(live.devices);
    // Devices were added, removed, renamed or moved: the table anew.
    if (live.revision !== revision || rows.length !== ids.length) {
      revision = live.revision;
      await whole();
      return;
    }
    for (const row of rows) show(row, live.devices[row.id.slice(1)]);
    for (const chip of page.querySelectorAll("[data-verdict].chip")) {
      const count = live.counts[chip.dataset.verdict] ?? 0;
      chip.querySelector("strong").textContent = count;
      chip.hidden = count === 0 && !chosen.has(chip.dataset.verdict);
    }
    av.times(page);
    av.times(agent);
    filter();
  }

  let revision = Number(page.dataset.revision);
  async function whole() {
    const answer = await fetch(location.pathname);
    if (answer.redirected || !answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const [now, then] = [document.getElementById("devices"), fresh.getElementById("devices")];
    if (!search || now.tagName !== then.tagName || now.className !== then.className) { location.reload(); return; }
    now.replaceChildren(...document.adoptNode(then).childNodes);
    etag = null;
    read();
    filter();
    av.times(page);
    poll();
  }

  search?.addEventListener("input", filter);
  for (const chip of page.querySelectorAll(".chip")) {
    chip.addEventListener("click", () => {
      const verdict = chip.dataset.verdict;
      if (!chosen.delete(verdict)) chosen.add(verdict);
      chip.setAttribute("aria-pressed", chosen.has(verdict));
      filter();
    });
  }
  read();
  setInterval(poll, 3000);
  document.addEventListener("visibilitychange", poll);
})();
