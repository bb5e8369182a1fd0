// A file of devices: first what it would change, then the change itself.
"use strict";

(() => {
  const form = document.getElementById("import-form");
  const preview = document.getElementById("preview");
  const apply = document.getElementById("apply");
  const site = form.dataset.site;
  let seen = null;

  function send(dryRun, etag) {
    const file = form.elements.file.files[0];
    const type = /\.json$/i.test(file.name) ? "application/json" : "text/csv";
    const mode = form.elements.replace.checked ? "replace" : "merge";
    return av.api("POST", `/admin/import?site_id=${site}&mode=${mode}${dryRun ? "&dry_run=1" : ""}`, new Blob([file], { type }), etag);
  }

  function table(head, rows) {
    const [header, body] = [preview.querySelector("thead"), preview.querySelector("tbody")];
    const row = (cells, tag) => {
      const line = document.createElement("tr");
      cells.forEach((text, i) => {
        const cell = document.createElement(tag);
        cell.textContent = text;
        if (tag === "td") {
          if (i === 0) cell.className = "name";
          else cell.dataset.label = head[i];
        } else cell.scope = "col";
        line.append(cell);
      });
      return line;
    };
    header.replaceChildren(...(rows.length ? [row(head, "th")] : []));
    body.replaceChildren(...rows.map((cells) => row(cells, "td")));
  }

  function show(title, head, rows) {
    preview.querySelector("h2").textContent = title;
    table(head, rows);
    preview.hidden = false;
    preview.scrollIntoView({ block: "nearest" });
    preview.focus({ preventScroll: true });
  }

  const word = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const fields = (device) => Object.entries(device.fields ?? {})
    .map(([name, change]) => `${name}: ${Array.isArray(change) ? change.map(word).join(" → ") : "before" in Object(change) || "after" in Object(change) ? `${word(change.before)} → ${word(change.after)}` : word(change)}`)
    .join("; ");

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    av.clearProblems(form);
    if (!form.elements.file.files[0]) { form.elements.file.focus(); return; }
    av.busy(form, async () => {
      const answer = await send(true);
      seen = null;
      apply.hidden = true;
      if (answer.status === 422 && answer.body.fields?.some((error) => error.row !== undefined)) {
        show(answer.body.error, [av.t("import.row"), av.t("import.field"), av.t("import.problem")], answer.body.fields.map((error) => [error.row, error.field, error.problem]));
        return;
      }
      if (answer.status !== 200) { preview.hidden = true; av.showProblems(form, answer); return; }
      const { added, changed, removed, unchanged, warnings } = answer.body;
      const rows = [
        ...added.map((device) => [av.t("import.added"), `${device.name} (${device.ip})`, ""]),
        ...changed.map((device) => [av.t("import.changed"), `${device.name} (${device.ip})`, fields(device)]),
        ...removed.map((device) => [av.t("import.removed"), `${device.name} (${device.ip})`, ""]),
        ...(warnings ?? []).map((warning) => [av.t("import.warning"), `${av.t("import.row")} ${warning.row}`, `${warning.field}: ${warning.problem}`]),
      ];
      show(av.t("import.would", added.length, changed.length, removed.length, unchanged), [av.t("import.change"), av.t("import.device"), av.t("import.detail")], rows);
      seen = answer.etag;
      apply.hidden = added.length + changed.length + removed.length === 0;
    });
  });

  form.addEventListener("input", () => { preview.hidden = true; });

  apply.addEventListener("click", async () => {
    apply.disabled = true;
    const answer = await send(false, seen);
    apply.disabled = false;
    if (answer.status === 200) location.href = `/sites/${site}`;
    else { preview.hidden = true; av.showProblems(form, answer); }
  });
})();
