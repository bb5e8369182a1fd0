// Channels: the form, and a message that tells of nothing.
"use strict";

(() => {
  const form = document.getElementById("channel-form");

  if (form) {
    const fields = form.elements;
    const kindChanged = () => {
      for (const set of form.querySelectorAll("[data-kind]")) set.hidden = set.dataset.kind !== fields.kind.value;
    };
    fields.kind.addEventListener("change", kindChanged);
    // A browser may have filled it in again.
    kindChanged();

    const body = () => {
      const sent = {
        name: fields.name.value.trim(),
        kind: fields.kind.value,
        site_id: fields.site.value === "" ? null : Number(fields.site.value),
        min_severity: fields.min_severity.value,
        timezone: fields.timezone.value.trim(),
        collect_s: av.number(fields.collect_s),
        digest_minutes: av.number(fields.digest_minutes),
        quiet_from: fields.quiet_from.value || null,
        quiet_to: fields.quiet_to.value || null,
      };
      for (const name of ["enabled", "notify_closed", "critical_passes"]) sent[name] = fields[name].checked;
      if (sent.kind === "mail") {
        sent.recipients = fields.recipients.value.split(/[\s,;]+/).filter(Boolean);
      } else {
        sent.url = fields.url.value.trim();
        sent.secret = fields.secret.value;
      }
      return sent;
    };

    form.addEventListener("submit", (event) => {
      event.preventDefault();
      av.busy(form, async () => {
        av.clearProblems(form);
        const { id } = form.dataset;
        const answer = id ? await av.api("PUT", `/admin/channels/${id}`, body()) : await av.api("POST", "/admin/channels", body());
        if (answer.status >= 300 || answer.status === 0) av.showProblems(form, answer);
        else location.href = `/channels/${answer.body.id}`;
      });
    });
  }

  for (const button of document.querySelectorAll("[data-test]")) {
    button.addEventListener("click", async () => {
      button.disabled = true;
      const answer = await av.api("POST", `/admin/channels/${button.dataset.test}/test`, {});
      button.disabled = false;
      if (answer.status >= 300 || answer.status === 0) { av.say(answer.body.error, true); return; }
      av.say(av.t("tested"));
      await av.refresh(document.getElementById("live"));
    });
  }
})();
