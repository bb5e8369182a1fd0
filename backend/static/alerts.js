// Alerts: acknowledge and comment.
"use strict";

(() => {
  const live = document.getElementById("live");

  async function done(answer, words) {
    if (answer.status >= 300 || answer.status === 0) { av.say(answer.body.error, true); return; }
    av.say(words);
    await av.refresh(live);
  }

  live.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-acknowledge]");
    if (!button) return;
    button.disabled = true;
    await done(await av.api("POST", `/admin/alerts/${button.dataset.acknowledge}/acknowledge`, {}), av.t("acknowledged"));
    button.disabled = false;
  });

  live.addEventListener("submit", async (event) => {
    const form = event.target.closest("[data-comment]");
    if (!form) return;
    event.preventDefault();
    const text = form.elements.body.value.trim();
    if (text === "") return;
    const answer = await av.api("POST", `/admin/alerts/${form.dataset.comment}/comments`, { body: text });
    if (answer.status > 0 && answer.status < 300) form.reset();
    document.activeElement?.blur();
    await done(answer, av.t("commented"));
  });
})();
