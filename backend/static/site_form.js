// A new site, or a site's settings.
"use strict";

(() => {
  const form = document.getElementById("site-form");
  const id = form.dataset.id;
  const numbers = ["ok_interval_s", "ko_interval_s", "doubt_after_days"];
  let etag = null;

  async function load() {
    const answer = await av.api("GET", `/admin/sites/${id}`);
    if (answer.status !== 200) { av.showProblems(form, answer); return; }
    etag = answer.etag;
    for (const name of ["name", "timezone", ...numbers]) form.elements[name].value = answer.body[name];
  }

  function showToken(site, token) {
    const box = document.getElementById("token");
    const config = { site_name: site.name, site_token: token, backend_url: location.origin };
    document.getElementById("token-config").textContent = JSON.stringify(config, null, 2);
    document.getElementById("token-done").href = `/sites/${site.id}`;
    box.hidden = false;
    box.scrollIntoView();
    document.getElementById("token-config").focus();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    av.busy(form, async () => {
      av.clearProblems(form);
      const body = { name: form.elements.name.value.trim(), timezone: form.elements.timezone.value.trim() };
      for (const name of numbers) {
        const value = av.number(form.elements[name]);
        if (value !== undefined) body[name] = value;
      }
      const answer = id ? await av.api("PUT", `/admin/sites/${id}`, body, etag) : await av.api("POST", "/admin/sites", body);
      if (answer.status >= 300 || answer.status === 0) { av.showProblems(form, answer); return; }
      if (id) { location.href = `/sites/${id}`; return; }
      form.closest("section").hidden = true;
      showToken(answer.body, answer.body.token);
    });
  });

  document.getElementById("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(document.getElementById("token-config").textContent);
      av.say(av.t("copied"));
    } catch {
      // Without TLS a browser has no clipboard: mark it for Ctrl-C.
      getSelection().selectAllChildren(document.getElementById("token-config"));
    }
  });

  document.getElementById("renew")?.addEventListener("click", async () => {
    if (!(await av.ask(av.t("renew.ask")))) return;
    const answer = await av.api("POST", `/admin/sites/${id}/token`, {});
    if (answer.status >= 300 || answer.status === 0) { av.say(answer.body.error, true); return; }
    showToken({ id, name: form.elements.name.value }, answer.body.token);
  });

  if (id) load();
})();
